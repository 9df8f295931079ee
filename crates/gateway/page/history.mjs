import { Backlog, Outbox, bytes, plural } from "./policy.mjs";

// The history on the screen: lines in the order in which the room gave them, own messages told
// apart, a bounded number of elements, scrolling that never takes the reader's place away.
// Text from the room only ever becomes text nodes.

/** What a tab keeps: enough to read back a while, little enough that a busy room does not eat it. */
const MAX_LINES = 500;
const MAX_CHARACTERS = 1_000_000;

/** How near to the end, in pixels, still counts as being there. */
const END_PX = 48;

/** At most one announcement in this time: a screen reader cannot keep up with a busy room. */
const SAY_EVERY_MS = 3_000;
const SAY_CHARACTERS = 140;

/** A hidden page gets no animation frames; lines then wait this long for company. */
const HIDDEN_FLUSH_MS = 250;

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export class History {
  #view;
  #backlog = new Backlog(MAX_LINES, MAX_CHARACTERS);
  #outbox = new Outbox();
  #incoming = [];
  #flushing = false;
  #following = true;
  #unseen = 0;
  #unsaid = { count: 0, last: "" };
  #sayTimer = undefined;
  #title = document.title;
  #unread = 0;

  /** `view`: the elements `scroller`, `lines`, `outgoing`, `empty`, `jump`, `said`; `resend(text)`. */
  constructor(view) {
    this.#view = view;
    view.jump.addEventListener("click", () => {
      this.#toEnd();
      view.scroller.focus();
    });
    // Only the reader's own scrolling decides whether new lines are followed. A smaller window (a
    // screen keyboard, a longer text in the composer) moves the end away too, and is made up for.
    let height = view.scroller.clientHeight;
    view.scroller.addEventListener("scroll", () => {
      if (view.scroller.clientHeight !== height) return;
      this.#following = this.#atEnd();
      if (this.#following) this.#seen();
    });
    new ResizeObserver(() => {
      height = view.scroller.clientHeight;
      if (this.#following) this.#toEnd();
    }).observe(view.scroller);
    const read = () => {
      if (this.#watched()) this.#unread = 0;
      this.#showTitle();
    };
    document.addEventListener("visibilitychange", read);
    window.addEventListener("focus", read);
  }

  /** The page's title without the unread count. */
  set title(title) {
    this.#title = title;
    this.#showTitle();
  }

  /** An own text that has just been sent; it joins the history when the room sends its copy. */
  sent(text) {
    this.#flush();
    const line = this.#line("own", text, text.length);
    this.#outbox.add(text, line);
    this.#view.outgoing.append(line.element);
    this.#view.empty.hidden = true;
    this.#toEnd();
  }

  /** A message of the room: a string, or a Blob for a binary one. */
  received(data) {
    if (typeof data !== "string") {
      const words = `binary, ${bytes(data.size)}`;
      this.#queue(this.#line("binary", words, 0));
      this.#arrived(words);
      return;
    }
    const { own, lost } = this.#outbox.take(data);
    lost.forEach((line) => this.#doubt(line));
    this.#queue(own ?? this.#line("other", data, data.length));
    if (!own) this.#arrived(data);
  }

  /** The connection has ended: what is still out may or may not have reached the room. */
  disconnected() {
    this.#outbox.drain().forEach((line) => this.#doubt(line));
  }

  /** A remark of the page itself. */
  note(text) {
    this.#queue({ element: element("li", "note", text), size: text.length });
  }

  #line(kind, text, size) {
    const line = element("li", `line ${kind}`);
    const now = new Date();
    const time = element("time", "", clock.format(now));
    time.dateTime = now.toISOString();
    if (kind === "own") line.append(element("span", "hidden", "You:"));
    const what = element("p", "what", text);
    what.dir = "auto";
    line.append(what, time);
    return { element: line, size, text };
  }

  #doubt(line) {
    line.element.classList.add("lost");
    const fate = element("p", "fate", "May not have reached the room.");
    const again = element("button", "link", "Send again");
    const discard = element("button", "link", "Discard");
    again.type = discard.type = "button";
    again.addEventListener("click", () => {
      if (this.#view.resend(line.text)) line.element.remove();
    });
    discard.addEventListener("click", () => {
      line.element.remove();
      this.#view.scroller.focus();
    });
    fate.append(again, discard);
    line.element.append(fate);
    if (this.#following) this.#toEnd();
  }

  // Lines are put on the screen once a frame: a burst costs one layout, not one a message. What
  // would fall out of the history at once is never put there.
  #queue(line) {
    this.#incoming.push(line);
    if (this.#incoming.length > MAX_LINES) this.#incoming.shift().element.remove();
    if (this.#flushing) return;
    this.#flushing = true;
    const flush = () => this.#flush();
    if (document.hidden) setTimeout(flush, HIDDEN_FLUSH_MS);
    else requestAnimationFrame(flush);
  }

  #flush() {
    this.#flushing = false;
    if (this.#incoming.length === 0) return;
    const { lines, empty } = this.#view;
    const fresh = this.#incoming.splice(0);
    let drop = 0;
    for (const line of fresh) drop += this.#backlog.add(line.size);
    lines.append(...fresh.map((line) => line.element));
    for (; drop > 0; drop -= 1) lines.firstElementChild?.remove();
    empty.hidden = true;
    this.#showTitle();
    if (this.#following) this.#toEnd();
    else this.#showJump();
  }

  #arrived(text) {
    if (!this.#following) this.#unseen += 1;
    if (!this.#watched()) this.#unread += 1;
    this.#unsaid.count += 1;
    this.#unsaid.last = text;
    if (this.#sayTimer === undefined) this.#say();
  }

  #say() {
    const { count, last } = this.#unsaid;
    this.#sayTimer = undefined;
    if (count === 0) return;
    const short = last.length > SAY_CHARACTERS ? `${last.slice(0, SAY_CHARACTERS)}…` : last;
    this.#view.said.textContent =
      count === 1 ? `New message: ${short}` : `${plural(count, "new message")}. The last: ${short}`;
    this.#unsaid.count = 0;
    this.#sayTimer = setTimeout(() => this.#say(), SAY_EVERY_MS);
  }

  #watched() {
    return !document.hidden && document.hasFocus();
  }

  #showTitle() {
    document.title = this.#unread > 0 ? `(${this.#unread}) ${this.#title}` : this.#title;
  }

  #atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.#view.scroller;
    return scrollHeight - scrollTop - clientHeight <= END_PX;
  }

  #toEnd() {
    this.#following = true;
    this.#view.scroller.scrollTop = this.#view.scroller.scrollHeight;
    this.#seen();
  }

  #seen() {
    this.#unseen = 0;
    this.#showJump();
  }

  #showJump() {
    this.#view.jump.hidden = this.#unseen === 0;
    this.#view.jump.textContent = `${plural(this.#unseen, "new message")} ↓`;
  }
}
