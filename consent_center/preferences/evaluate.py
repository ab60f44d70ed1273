"""One contact decision from what is known: every reason against it, and the first time without any.

Which keys count, for a contact on channel c about topic t: (c, t), (c, *), (*, t), (*, *).

- A refusal at a key stands unless a strictly narrower key says yes and did so not before the refusal:
  "no text messages but order news" works, and a later "no" to everything ends every older yes.
- A policy that is not binding gives way to a person's caps at the *same* key (a cap counts the contacts of
  its key, so another key's cap is about something else), and to a person's quiet hours at the same or a
  narrower key.
- All caps, quiet hours and pauses that are left apply together.

The first free time is exact: each ground's own "first time from t on" is, and they are asked in turn until
none moves it. Reservations count as if they were used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from consent_center.batch import micros
from consent_center.preferences.hours import after_cap, after_quiet
from consent_center.preferences.model import (
    ALL,
    TEMPORARY,
    Answer,
    Cap,
    Policy,
    Preference,
    Quiet,
    Reason,
    when,
)


@dataclass(frozen=True)
class Consent:
    """What the center decided about the linked purpose: `reason` empty for yes; `end` in microseconds."""

    purpose: str
    reason: str
    end: int | None


@dataclass(frozen=True)
class Known:
    """What bears on one question. `made`: (time, channel, topic), ascending, reservations included."""

    preferences: Sequence[Preference]
    policies: Sequence[Policy]
    made: Sequence[tuple[int, str, str]]
    consents: Sequence[Consent]  # of every linked purpose
    minor_until: int | None  # microseconds


def covers(key: tuple[str, str], channel: str, topic: str) -> bool:
    """Whether a key is about contacts (or narrower keys) of that channel and topic."""
    return key[0] in (ALL, channel) and key[1] in (ALL, topic)


def keys_of(channel: str, topic: str) -> tuple[tuple[str, str], ...]:
    """The keys that cover one channel and topic, the narrowest first."""
    return ((channel, topic), (channel, ALL), (ALL, topic), (ALL, ALL))


def evaluate(known: Known, channel: str, topic: str, at: int, fixed: Sequence[Reason] = ()) -> Answer:
    """The decision at `at` (microseconds); `fixed` are reasons found already (unknown channel ...)."""
    wishes = [p for p in known.preferences if covers((p.channel, p.topic), channel, topic)]
    policies = [p for p in known.policies if covers((p.channel, p.topic), channel, topic)]
    reasons = [*fixed, *_consent(known, at), *_will(wishes, policies)]
    grounds = [*_pauses(wishes), *_quiet(wishes, policies), *_caps(known, wishes, policies)]
    for ground in grounds:
        free = ground.free(at)
        if free != at:
            reasons.append(ground.reason(free))
    following = None
    if not reasons:
        following = at
    elif all(reason.code in TEMPORARY for reason in reasons):
        following = _first_free(grounds, at)
        ends = [consent.end for consent in known.consents if consent.end is not None]
        if following is not None and ends and following >= min(ends):
            following = None
    return Answer(not reasons, tuple(reasons), when(at), None if following is None else when(following))


def _consent(known: Known, at: int) -> Iterator[Reason]:
    if not known.consents and known.minor_until is not None and at < known.minor_until:
        yield Reason("minor", detail="no purpose is linked, so no guardian's consent either")
    for consent in known.consents:
        reason = consent.reason or ("expired" if consent.end is not None and at >= consent.end else "")
        if reason:
            yield Reason("no_consent", "consent", detail=f"{consent.purpose}: {reason}")
        if reason == "minor_without_guardian":
            yield Reason("minor", "consent", detail=consent.purpose)


def ended_by(yes: Preference, wishes: Sequence[Preference]) -> Preference | None:
    """The broader no that was said after a yes and so ended it."""
    later = (p for p in wishes if p.allowed is False and _narrower(yes, p) and _since(yes) < _since(p))
    return next(later, None)


def refused_by(wishes: Sequence[Preference], channel: str, topic: str) -> Preference | None:
    """The first no that stands for that channel and topic (`*`: for all of them), the narrowest first."""
    about = [p for p in wishes if covers((p.channel, p.topic), channel, topic)]
    about.sort(key=lambda p: (p.topic == ALL, p.channel == ALL))
    return next(_refusals(about), None)


def _refusals(wishes: Sequence[Preference]) -> Iterator[Preference]:
    yes = [p for p in wishes if p.allowed is True]
    for no in wishes:
        if no.allowed is False and not any(_narrower(p, no) and _since(p) >= _since(no) for p in yes):
            yield no


def _will(wishes: Sequence[Preference], policies: Sequence[Policy]) -> Iterator[Reason]:
    yes = [p for p in wishes if p.allowed is True]
    for no in _refusals(wishes):
        narrow = "opted_out_topic" if no.topic != ALL else "opted_out_channel"
        code = "opted_out" if (no.channel, no.topic) == (ALL, ALL) else narrow
        yield Reason(code, "preference", no.channel, no.topic)
    for policy in policies:
        if policy.opt_in and not any(_same(p, policy) or _narrower(p, policy) for p in yes):
            yield Reason("no_opt_in", "policy", policy.channel, policy.topic)


def _since(wish: Preference) -> int:
    return micros(wish.occurred_at) if wish.occurred_at else 0


def _same(one: Preference | Policy, other: Preference | Policy) -> bool:
    return (one.channel, one.topic) == (other.channel, other.topic)


def _narrower(one: Preference | Policy, other: Preference | Policy) -> bool:
    return not _same(one, other) and covers((other.channel, other.topic), one.channel, one.topic)


@dataclass(frozen=True)
class _Ground:
    """A ground that ends by itself. `free(t)`: the first time from t on without it, None for never."""

    by: str
    channel: str
    topic: str
    pause: int | None = None
    quiet: tuple[Quiet, ...] = ()
    cap: Cap | None = None
    zone: str = ""
    made: tuple[int, ...] = ()

    def free(self, at: int) -> int | None:
        if self.pause is not None:
            return max(at, self.pause)
        if self.cap is not None:
            return after_cap(self.cap, self.zone, self.made, at)
        return after_quiet(self.quiet, at)

    def reason(self, free: int | None) -> Reason:
        until = None if free is None else when(free)
        code, detail = "quiet_hours", ", ".join(f"{q.start}-{q.end} {q.zone}" for q in self.quiet)
        if self.pause is not None:
            code, detail = "paused", ""
        elif self.cap is not None:
            code, detail = f"cap_{self.cap.per}", f"at most {self.cap.count} per {self.cap.per}"
        return Reason(code, self.by, self.channel, self.topic, until, detail)


def _first_free(grounds: Sequence[_Ground], at: int) -> int | None:
    # All quiet hours as one ground: those of two keys may leave no free moment together, and asked in turn
    # they would push the time on for ever.
    quiet = tuple(dict.fromkeys(period for ground in grounds for period in ground.quiet))
    asked = [ground for ground in grounds if not ground.quiet]
    asked += [_Ground("", "", "", quiet=quiet)] if quiet else []
    moved = True
    while moved:  # a pause or a cap moves it a bounded number of times, quiet hours only after those
        moved = False
        for ground in asked:
            free = ground.free(at)
            if free is None:
                return None
            moved, at = moved or free != at, free
    return at


def _pauses(wishes: Sequence[Preference]) -> Iterator[_Ground]:
    for wish in wishes:
        if wish.paused_until is not None:
            yield _Ground("preference", wish.channel, wish.topic, pause=micros(wish.paused_until))


def _quiet(wishes: Sequence[Preference], policies: Sequence[Policy]) -> Iterator[_Ground]:
    said = [p for p in wishes if p.quiet is not None]
    for wish in said:
        if wish.quiet:
            yield _Ground("preference", wish.channel, wish.topic, quiet=wish.quiet)
    for policy in policies:
        gives_way = not policy.binding and any(_same(p, policy) or _narrower(p, policy) for p in said)
        if policy.quiet and not gives_way:
            yield _Ground("policy", policy.channel, policy.topic, quiet=policy.quiet)


def _caps(known: Known, wishes: Sequence[Preference], policies: Sequence[Policy]) -> Iterator[_Ground]:
    said = [p for p in wishes if p.caps is not None]
    kept = [p for p in policies if p.binding or not any(_same(wish, p) for wish in said)]
    for by, sources in (("preference", said), ("policy", kept)):
        for source in sources:
            key = (source.channel, source.topic)
            times = tuple(t for t, channel, topic in known.made if covers(key, channel, topic))
            for cap in source.caps or ():
                yield _Ground(by, *key, cap=cap, zone=source.zone, made=times)
