/* PEC consent script. One file, no dependencies, no cookies.
   <script src="https://consent.example/v1/embed.js" data-site="KEY" data-lang="zh" defer></script>
   data-person: token of POST /v1/preference-links (kind "embed"), for who is logged in.
   data-signals: "tcf gpp" passes on what __tcfapi and __gpp say.
   window.pecConsent: open(), state(), ready. Event on document: "pec:consent". */
(function () {
  "use strict";
  var tag = document.currentScript;
  if (!tag || window.pecConsent) return;
  var site = tag.getAttribute("data-site") || "";
  var base = new URL(tag.src).origin + "/v1/public/" + encodeURIComponent(site) + "/";
  var wanted = tag.getAttribute("data-lang") || document.documentElement.lang || navigator.language || "zh";
  var lang = wanted.slice(0, 2).toLowerCase() === "en" ? "en" : "zh";
  var person = tag.getAttribute("data-person") || "";
  var gpc = navigator.globalPrivacyControl === true;
  var slot = "pec:" + site;
  var kept = read(), form = null, host = null, before = null, opened = false;

  function read() {
    try { return JSON.parse(localStorage.getItem(slot)) || {}; } catch (e) { return {}; }
  }
  function keep() {
    try { localStorage.setItem(slot, JSON.stringify(kept)); } catch (e) { kept.volatile = true; }
  }
  function visitor() {
    if (!kept.visitor) {
      var bytes = crypto.getRandomValues(new Uint8Array(24));
      kept.visitor = btoa(String.fromCharCode.apply(null, bytes)).replace(/\+/g, "-").replace(/\//g, "_");
    }
    return kept.visitor;
  }
  function post(path, body) {
    body.gpc = gpc;
    if (person) body.person = person; else body.visitor = visitor();
    return fetch(base + path, {
      method: "POST", mode: "cors", credentials: "omit", referrerPolicy: "no-referrer", keepalive: true,
      headers: { "Content-Type": "application/json" }, body: JSON.stringify(body)
    }).then(function (r) {
      return r.json().then(function (data) {
        if (!r.ok) { var e = new Error(data.detail || r.status); e.code = data.code; throw e; }
        return data;
      });
    });
  }
  function state() {
    var found = {};
    if (form) form.offers.forEach(function (o) {
      (found[o.purpose] = found[o.purpose] || {})[o.recipient_id] = gpc && o.gpc ? "denied" : o.state;
    });
    return found;
  }
  function tell(name) {
    document.dispatchEvent(new CustomEvent("pec:consent", { detail: { what: name, state: state(), gpc: gpc } }));
  }
  function load() {
    return post("form", { language: lang }).then(function (data) { form = data; return data; });
  }
  function later(offer) {
    var until = kept.later && kept.later[offer.key + offer.notice_hash.slice(0, 8)];
    return until && Date.now() < until;
  }
  function asks(offer) { return offer.ask && !later(offer); }

  /* ---- drawing: text nodes only, styles by CSSOM, so no page policy is loosened and nothing is parsed as HTML ---- */
  function el(name, props, kids) {
    var node = document.createElement(name);
    Object.keys(props || {}).forEach(function (key) {
      if (key === "text") node.textContent = props[key];
      else if (key.slice(0, 2) === "on") node.addEventListener(key.slice(2), props[key]);
      else node.setAttribute(key, props[key]);
    });
    (kids || []).forEach(function (kid) { if (kid) node.appendChild(kid); });
    return node;
  }
  var CSS = ":host{all:initial}.box{position:fixed;z-index:2147483000;right:16px;bottom:16px;width:min(30rem,calc(100vw - 32px));" +
    "max-height:calc(100vh - 32px);overflow:auto;box-sizing:border-box;padding:18px;border-radius:12px;border:1px solid #7d8896;" +
    "background:#fff;color:#17202b;font:16px/1.55 system-ui,'PingFang SC','Microsoft YaHei',sans-serif;box-shadow:0 8px 30px rgba(0,0,0,.25)}" +
    "h2{font-size:18px;margin:0 0 6px}h3{font-size:16px;margin:0 0 4px;overflow-wrap:anywhere}p{margin:0 0 8px}small{color:#556170;font-size:14px;overflow-wrap:anywhere}" +
    ".offer{border-top:1px solid #d5dce4;padding:12px 0 4px}.pair{display:grid;grid-template-columns:1fr 1fr;gap:10px;margin:8px 0}" +
    "button{font:inherit;font-weight:600;min-height:46px;padding:6px 10px;border-radius:8px;border:2px solid #1f4f99;background:#fff;color:#1f4f99;cursor:pointer}" +
    "button.plain{border-color:transparent;text-decoration:underline;width:100%}button:focus-visible,summary:focus-visible{outline:3px solid #b45309;outline-offset:2px}" +
    "summary{cursor:pointer;color:#1f4f99}.text{white-space:pre-wrap;overflow-wrap:anywhere;border-left:3px solid #d5dce4;padding-left:10px}" +
    "@media(max-width:480px){.box{right:0;left:0;bottom:0;width:100vw;border-radius:12px 12px 0 0;max-height:85vh}}" +
    "@media(prefers-color-scheme:dark){.box{background:#1a2129;color:#e6ebf1;border-color:#556170}button{background:#1a2129;color:#8db4f2;border-color:#8db4f2}" +
    "small{color:#a3afbd}.offer,.text{border-color:#38434f}summary{color:#8db4f2}}";

  function close(name) {
    if (!host) return;
    host.remove(); host = null;
    if (before && before.focus) before.focus();
    tell(name || "closed");
  }
  function show(offers, mine) {
    if (host) host.remove();
    var t = form.texts, sep = lang === "zh" ? "、" : ", ";
    before = document.activeElement;
    host = document.createElement("div");
    host.setAttribute("data-pec-host", "");
    var root = host.attachShadow({ mode: "open" });
    if (root.adoptedStyleSheets !== undefined) {
      var sheet = new CSSStyleSheet(); sheet.replaceSync(CSS); root.adoptedStyleSheets = [sheet];
    } else root.appendChild(el("style", { text: CSS }));
    var status = el("p", { role: "status", "aria-live": "polite" });
    var cards = offers.map(function (o) {
      var line = el("small"), card;
      var no = o.state === "granted" || o.state === "outdated" ? "withdraw" : "refuse";
      function draw() { line.textContent = t.recipient + ": " + o.recipient + " · " + t.categories + ": " + o.categories.join(sep) + " · " + t.state + ": " + t[o.state]; }
      draw();
      function choose(action) {
        return function () {
          var body = { ticket: form.ticket, answers: {}, own_initiative: !!mine };
          body.answers[o.key] = action;
          post("answers", body).then(function (done) {
            o.state = done.results[o.key].state; o.ask = false; draw(); keep();
            status.textContent = done.results[o.key].method === "gpc" ? t.gpc : t.saved;
            if (!mine) {
              card.remove();
              var next = root.querySelector(".offer button");
              if (next) next.focus(); else close("answered");
            }
            tell("answered");
          }).catch(function (e) {
            if (e.code === "link.ticket") load().then(function () { show(form.offers.filter(mine ? Boolean : asks), mine); });
            else status.textContent = e.message;
          });
        };
      }
      card = el("section", { "class": "offer", "aria-label": o.title }, [
        el("h3", { text: o.title }), el("p", {}, [line]),
        o.contact ? el("p", {}, [el("small", { text: t.contact + ": " + o.contact })]) : null,
        o.methods.length ? el("p", {}, [el("small", { text: t.method + ": " + o.methods.join(sep) })]) : null,
        el("details", {}, [el("summary", { text: t.notice }), el("p", { "class": "text", lang: o.text_language, text: o.text })]),
        el("div", { "class": "pair" }, [
          el("button", { type: "button", text: t[no], "data-answer": no, onclick: choose(no) }),
          el("button", { type: "button", text: t.agree, "data-answer": "grant", onclick: choose("grant") })
        ])
      ]);
      return card;
    });
    function leave() {
      if (!mine) {
        kept.later = kept.later || {};
        offers.forEach(function (o) { if (o.ask) kept.later[o.key + o.notice_hash.slice(0, 8)] = Date.now() + 864e5; });
        keep();
      }
      close("later");
    }
    var head = el("h2", { id: "pec-title", tabindex: "-1", text: t.banner_title });
    root.appendChild(el("div", {
      "class": "box", role: "dialog", "aria-modal": "false", "aria-labelledby": "pec-title", lang: lang,
      onkeydown: function (e) { if (e.key === "Escape") leave(); }
    }, [head, el("p", { text: t.banner_intro }), gpc ? el("p", { text: t.gpc }) : null].concat(cards, [status,
      el("button", { type: "button", "class": "plain", text: mine ? t.close : t.later, onclick: leave })])));
    document.body.appendChild(host);
    if (mine) head.focus();
    if (!mine && offers.length) post("shown", { ticket: form.ticket, offers: offers.map(function (o) { return o.key; }) }).catch(function () { tell("uncounted"); });
    tell("shown");
  }
  function open() {
    opened = true;
    return load().then(function () { show(form.offers, true); });
  }
  function signals() {
    var names = (tag.getAttribute("data-signals") || "").split(/\s+/), body = {};
    var sending = Promise.resolve();
    /* One after the other, each with what is known by then: an older answer must not come last. */
    function send() {
      sending = sending.then(function () {
        var key = JSON.stringify(body) + gpc;
        if (!(body.tc_string || body.gpp_string) || kept.signals === key || person) return null;
        return post("signals", Object.assign({}, body)).then(function () { kept.signals = key; keep(); tell("signals"); });
      }).catch(function (e) { tell("signals failed: " + (e.code || e.message)); });
    }
    if (names.indexOf("tcf") >= 0 && typeof window.__tcfapi === "function") {
      window.__tcfapi("addEventListener", 2, function (data, ok) {
        if (ok && data && (data.eventStatus === "tcloaded" || data.eventStatus === "useractioncomplete")) { body.tc_string = data.tcString; send(); }
      });
    }
    if (names.indexOf("gpp") >= 0 && typeof window.__gpp === "function") {
      window.__gpp("ping", function (data, ok) { if (ok && data && data.gppString) { body.gpp_string = data.gppString; send(); } });
    }
  }
  function begin() {
    /* The signal is a no to every offer that honours it: recorded once a notice, without a question. */
    var bound = gpc ? form.offers.filter(function (o) { return o.gpc && (o.state === "none" || o.state === "granted" || o.state === "outdated"); }) : [];
    var told = Promise.resolve();
    if (bound.length && (kept.visitor || person)) {
      var answers = {};
      bound.forEach(function (o) { answers[o.key] = "refuse"; });
      told = post("answers", { ticket: form.ticket, answers: answers }).then(function (done) {
        bound.forEach(function (o) { o.state = done.results[o.key].state; }); keep();
      });
    }
    return told.then(function () {
      var open_now = form.offers.filter(asks);
      if (open_now.length && !opened) show(open_now, false);
      tell("ready"); signals();
    });
  }
  document.addEventListener("click", function (e) {
    var hit = e.target.closest && e.target.closest("[data-pec-open]");
    if (hit) { e.preventDefault(); open(); }
  });
  function start() { return load().then(begin).catch(function (e) { tell("failed: " + (e.code || e.message)); }); }
  window.pecConsent = { open: open, state: state, ready: null };
  window.pecConsent.ready = new Promise(function (done) {
    function go() { start().then(function () { done(state()); }); }
    if (document.body) go(); else document.addEventListener("DOMContentLoaded", go);
  });
})();
