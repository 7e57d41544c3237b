// What makes the pages quick to hand. Each of them is whole without it: this keeps what is shown up to
// date, counts times down, and lets the keyboard lead. It asks nobody but the gateway that it came from.

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const root = document.documentElement;

/** An element with its attributes and what is in it; text stays text. */
function make(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  made.append(...inside);
  return made;
}

/** What this browser remembers of a choice; where it may not, nothing is lost but that. */
const choices = {
  get(name) {
    try { return localStorage.getItem(`onceward.${name}`); } catch { return null; }
  },
  set(name, value) {
    try { localStorage.setItem(`onceward.${name}`, value); } catch { /* it holds for this page */ }
  },
};

// Times. They are counted from the gateway's clock, as the page said it.

const clock = $('#main')?.dataset.now;
const ahead = clock ? Number(clock) - Date.now() : 0;

function duration(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

/** As the gateway says it (`words::time`). */
function relative(at, now) {
  if (at - now >= 1000) return `in ${duration(at - now)}`;
  if (now - at < 1000) return 'just now';
  return `${duration(now - at)} ago`;
}

const awaited = new WeakSet();

function tick() {
  const now = Date.now() + ahead;
  for (const time of all('time.ago')) {
    const at = Date.parse(time.dateTime);
    const said = relative(at, now);
    if (time.textContent !== said) time.textContent = said;
    // What was to come has come: the page knows no more of it.
    if (at > now) awaited.add(time);
    else if (awaited.delete(time)) live.hint();
  }
  // What goes on without a word in the stream.
  if ($('[data-every]')) live.hint(1000);
}

// Live. A stream says that something changed; what is so is read from the page itself, once more.

/** A form that somebody has begun to fill in stays theirs. */
const isTouched = (form) => form.contains(document.activeElement) || [...form.elements].some((field) =>
  field.type !== 'hidden' && (field.type === 'checkbox' || field.type === 'radio'
    ? field.checked !== field.defaultChecked
    : field.matches('input, textarea') && field.value !== field.defaultValue));
const isHeld = (node) => node.nodeType === Node.ELEMENT_NODE
  && [node, ...all('form', node)].some((form) => form.matches('form') && isTouched(form));

const nameOf = (node) => node.nodeType === Node.ELEMENT_NODE ? node.dataset.key ?? node.id : '';

/** Makes `old` say what `fresh` says, and leaves alone all that says it already: focus, places scrolled
    to, what is marked, and what was folded open. */
function renew(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE || old.isEqualNode(fresh)) return;
  if (old.matches('form') && isTouched(old)) return;
  for (const { name } of [...old.attributes]) {
    if (name !== 'open' && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== 'open' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  renewInside(old, fresh);
}

function renewInside(old, fresh) {
  const named = new Map([...old.children].filter(nameOf).map((child) => [nameOf(child), child]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const name = nameOf(next);
    const isSame = at && !nameOf(at) && !name && at.nodeName === next.nodeName;
    const same = name ? named.get(name) : isSame ? at : null;
    if (!same) old.insertBefore(next, at);
    else if (same === at) at = at.nextSibling;
    else old.insertBefore(same, at);
    if (same) renew(same, next);
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    if (!isHeld(gone)) gone.remove();
  }
}

/** A list keeps its rows where they are: what is new is told, and comes when it is wanted. */
function renewList(old, fresh) {
  const [body, newer] = [$('tbody', old), $('tbody', fresh)];
  if (!body || !newer) return renew(old, fresh);
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const rows = [...newer.rows];
  const oldest = rows.at(-1)?.dataset.key ?? '';
  let count = 0;
  for (const row of rows) {
    const same = known.get(row.dataset.key);
    known.delete(row.dataset.key);
    if (same) renew(same, row);
    else count += 1;
  }
  // Those that only left the page by its end are no news.
  for (const [key, row] of known) row.classList.toggle('gone', key > oldest);
  announce(old, count);
}

function announce(list, count) {
  const place = $('.announce', list);
  if (!place) return;
  const said = count > 0 ? `${count} new` : '';
  const button = $('button', place);
  if ((button?.dataset.said ?? '') === said) return;
  if (!said) return place.replaceChildren();
  const show = make('button', { type: 'button', 'data-said': said }, said, make('span', {}, ' · show'));
  show.addEventListener('click', () => live.show(list.id));
  place.replaceChildren(show);
}

const live = {
  stream: null,
  timer: 0,
  due: 0,
  isReading: false,
  isWanted: false,
  shown: '',
  pause: 0,

  /** Whether something of the page itself changes: for the counts beside the ways alone nothing is asked. */
  isWorth: () => $('main [data-live]') !== null,

  /** Something may have changed; it is read again so soon, and not sooner than the gateway bears. */
  hint(soon = 300) {
    if (document.hidden || !this.isWorth()) return;
    if (this.isReading) { this.isWanted = true; return; }
    const due = performance.now() + Math.max(soon, this.pause);
    if (this.timer && this.due <= due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => { this.timer = 0; this.read(); }, due - performance.now());
  },

  /** Shows what a list announced. */
  show(id) {
    this.shown = id;
    clearTimeout(this.timer);
    this.timer = 0;
    this.read();
  },

  async read() {
    if (this.isReading) { this.isWanted = true; return; }
    this.isReading = true;
    const began = performance.now();
    try {
      const headers = { Accept: 'text/html' };
      // A session goes on for a person who looks, and not for what is read by itself.
      if (!this.shown) headers['Onceward-By-Itself'] = 'true';
      const answer = await fetch(location.href, { headers, cache: 'no-store' });
      if (answer.redirected && new URL(answer.url).pathname !== location.pathname) return this.close();
      if (answer.ok) this.take(new DOMParser().parseFromString(await answer.text(), 'text/html'));
    } catch {
      // The gateway is away; the stream comes back with it.
    } finally {
      this.isReading = false;
      // A gateway that has much to do is asked less.
      this.pause = 5 * (performance.now() - began);
      if (this.isWanted) { this.isWanted = false; this.hint(); }
    }
  },

  take(page) {
    // What is for pages without a script is read as elements here, and would run.
    for (const without of all('noscript', page)) without.replaceChildren();
    for (const fresh of all('[data-live]', page)) {
      const old = document.getElementById(fresh.id);
      if (!old) continue;
      if (fresh.dataset.live !== 'list' || this.shown === fresh.id) renew(old, fresh);
      else renewList(old, fresh);
      if (this.shown === fresh.id) $('tbody a', old)?.focus({ preventScroll: true });
    }
    this.shown = '';
    document.title = page.title || document.title;
    selection.tell();
    tick();
  },

  open() {
    const places = all('main [data-live]');
    if (this.stream || document.hidden || !this.isWorth()) return;
    this.stream = new EventSource('/v1/changes');
    this.stream.addEventListener('changed', ({ data }) => {
      const { data: changed, left_out: leftOut } = JSON.parse(data);
      const ids = new Set(changed.map(({ id }) => id));
      const isAbout = ({ dataset: { about } }) => !about || !ids.size || leftOut || ids.has(about);
      // The counts beside the ways are no hurry.
      this.hint(places.some(isAbout) ? 300 : 5000);
    });
    this.stream.addEventListener('error', () => {
      // Where it was refused it does not come back by itself.
      if (this.stream?.readyState === EventSource.CLOSED) {
        this.close();
        setTimeout(() => this.open(), 30000);
      }
    });
  },

  close() {
    this.stream?.close();
    this.stream = null;
  },
};

// What is selected in a list, so that something is done to all of it: the form above it says how much.

const BOX = 'main tbody input[name=op]';
const selection = {
  /** The box that was clicked last: with Shift all up to the next are selected with it. */
  last: null,

  tell() {
    const form = $('form.many');
    if (!form) return;
    const boxes = all(BOX);
    const count = boxes.filter((box) => box.checked).length;
    const whole = $('[data-all]', form);
    whole.checked = count > 0 && count === boxes.length;
    whole.indeterminate = count > 0 && count < boxes.length;
    form.classList.toggle('some', count > 0);
    for (const button of all('button', form)) button.disabled = count === 0;
    const said = `${count} selected`;
    if ($('output', form).textContent !== said) $('output', form).textContent = said;
  },

  clicked(box, isRange) {
    const boxes = all(BOX);
    const [from, to] = [boxes.indexOf(this.last), boxes.indexOf(box)].sort((a, b) => a - b);
    if (isRange && from >= 0) for (const other of boxes.slice(from, to + 1)) other.checked = box.checked;
    this.last = box;
    this.tell();
  },

  all(isWanted) {
    for (const box of all(BOX)) box.checked = isWanted;
    this.tell();
  },
};

// The keyboard. Each of its letters does what a link or a button of the page does.

const KEYS = [
  ['/', 'search'],
  ['j', 'next row'],
  ['k', 'row before'],
  ['Enter', 'open the row'],
  ['x', 'select the row, or no more'],
  ['r', 'redeliver, or resolve what is in doubt: goes to the form, or to the plan for what is selected'],
  ['n', 'show what is new'],
  ['?', 'this help'],
];

/** The link that opens a row: its own, or the first that it has. */
const wayIn = (row) => $('a.key', row) ?? $('td a', row);

function move(by) {
  const links = all('main tbody tr').map(wayIn).filter(Boolean);
  const at = links.findIndex((link) => link.closest('tr').contains(document.activeElement));
  const to = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by];
  to?.focus();
  to?.scrollIntoView({ block: 'nearest' });
}

function search() {
  const field = $('form[role=search] input[type=search], form[role=search] input[name=text]');
  if (!field) return location.assign('/operations#search');
  field.closest('details')?.setAttribute('open', '');
  field.focus();
  field.select();
}

/** Folds open whatever the field is in, and goes there. */
function reach(field) {
  for (let at = field.closest('details'); at; at = at.parentElement.closest('details')) at.open = true;
  field.scrollIntoView({ block: 'center' });
  field.focus({ preventScroll: true });
}

/** What somebody types into or chooses from. */
const FIELD = 'input:not([type=hidden], [type=radio], [type=checkbox]), select, textarea';

/** The first form of what can be done. */
function act() {
  const field = all('#acts form').map((form) => $(FIELD, form)).find(Boolean);
  if (field) reach(field);
}

/** Selects the row where the focus is, or no longer. */
function select() {
  const row = document.activeElement.closest('main tbody tr');
  const box = row && $('input[name=op]', row);
  if (!box) return;
  box.checked = !box.checked;
  selection.clicked(box, false);
}

function redeliver() {
  const first = $('form.many.some button');
  if (first) return first.click();
  const field = $('form[action$="/redeliver"] [name=reason]');
  // What is in doubt is resolved first; sending it again all the same is the last resort.
  if (field?.closest('details')) return act();
  if (field) return reach(field);
  const row = document.activeElement.closest('tr');
  if (!row) return act();
  // A cause has a plan for all of it, what is in doubt its forms.
  const own = $('a.button', row);
  const link = wayIn(row);
  if (own) location.assign(own.href.replace(/#acts$/, '#resolve'));
  else if (link) location.assign(`${link.href}#redeliver`);
}

function help() {
  let dialog = $('dialog#keys-help');
  if (!dialog) {
    const off = make('input', { type: 'checkbox' });
    off.checked = choices.get('keys') !== 'off';
    off.addEventListener('change', () => choices.set('keys', off.checked ? 'on' : 'off'));
    const list = make('dl', {}, ...KEYS.flatMap(([key, what]) => [make('dt', {}, make('kbd', {}, key)), make('dd', {}, what)]));
    const close = make('form', { method: 'dialog' }, make('button', {}, 'Close'));
    dialog = make('dialog', { id: 'keys-help', 'aria-labelledby': 'keys-help-title' },
      make('h2', { id: 'keys-help-title' }, 'Keyboard'), list,
      make('label', { class: 'choice' }, off, ' Letters do this (? always does)'), close);
    document.body.append(dialog);
  }
  if (!dialog.open) dialog.showModal();
}

const ACTS = { '/': search, j: () => move(1), k: () => move(-1), x: select, r: redeliver, n: () => $('.announce button')?.click(), '?': help };

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $('dialog[open]')) return;
  const fold = event.key === 'Escape' && event.target.closest('details.act[open]');
  if (fold) {
    fold.open = false;
    return $('summary', fold)?.focus();
  }
  if (event.target.closest(`${FIELD}, [contenteditable]`)) {
    if (event.key === 'Escape') event.target.blur();
    return;
  }
  const act = ACTS[event.key];
  if (!act || (choices.get('keys') === 'off' && event.key !== '?')) return;
  event.preventDefault();
  act();
});

// A form that folds out over the page takes the focus, and there is one at a time.
document.addEventListener('toggle', ({ target: fold }) => {
  if (!fold.matches?.('details.act[open]')) return;
  for (const other of all('details.act[open]')) if (other !== fold) other.open = false;
  $(FIELD, fold)?.focus();
}, true);

// What is clicked.

async function copy(button) {
  const from = document.getElementById(button.dataset.copies);
  if (!from) return;
  try {
    await navigator.clipboard.writeText(from.textContent);
  } catch {
    // Over plain HTTP a browser lets only what is marked be copied.
    getSelection().selectAllChildren(from);
    document.execCommand('copy');
  }
  const said = button.textContent;
  button.textContent = 'Copied';
  setTimeout(() => { button.textContent = said; }, 1500);
}

document.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-copies]');
  if (button) copy(button);
  if (event.target.matches?.(BOX)) selection.clicked(event.target, event.shiftKey);
  if (event.target.matches?.('[data-all]')) selection.all(event.target.checked);
  if (event.target.closest('[data-help]')) help();
});

// Light and dark. The choice goes to the gateway in a cookie, so that the next page comes in it.

function chooseTheme(theme) {
  if (theme) root.dataset.theme = theme;
  else delete root.dataset.theme;
  const age = theme ? 31536000 : 0;
  document.cookie = `onceward_theme=${theme}; path=/; max-age=${age}; samesite=lax`;
}

for (const select of all('select[data-theme-choice]')) {
  select.value = root.dataset.theme ?? '';
  select.addEventListener('change', () => chooseTheme(select.value));
}

root.classList.add('scripted');
setInterval(tick, 1000);
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return live.close();
  live.open();
  live.hint();
});
// A page that is left and come back to is shown as it was: the stream goes with it, and comes again.
addEventListener('pagehide', () => live.close());
addEventListener('pageshow', (event) => {
  selection.tell();
  if (event.persisted) { live.open(); live.hint(); }
});
live.open();
if (location.hash === '#search') search();
if (location.hash === '#redeliver') redeliver();
// No part of the page is called so: a browser takes the focus from a field where it scrolls to one that is.
if (location.hash === '#resolve') act();
