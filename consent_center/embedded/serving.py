"""What a group of single events and questions (`group`) is written and answered with."""

from __future__ import annotations

import sqlalchemy as sa

from consent_center.embedded.decisions import Deciding
from consent_center.embedded.recording import Recording
from consent_center.preferences.service import Preferences


class Serving(Recording, Deciding):
    """Recording, deciding, and whether people may be contacted."""

    @property
    def preferences(self) -> Preferences:
        """Whether people may be contacted: channels, topics, frequency caps, quiet hours."""
        return self._preferences(None)

    def _preferences(self, connection: sa.Connection | None) -> Preferences:
        return Preferences(
            self._keys, self._read, self._write, self._now, self._judge, self._has_rules(connection)
        )
