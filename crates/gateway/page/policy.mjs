// The decisions of the room's page, without DOM, network or clock: when to come back after a close
// or a refusal, in which words to say why, how long a text is on the wire, which messages are one's
// own, and how much history to keep. `node --test` runs against this file as it stands.

/** Full jitter: a wait is drawn from zero to a ceiling that doubles with each failure up to this. */
const BACKOFF_FIRST_MS = 1_000;
const BACKOFF_CAP_MS = 30_000;

/** A restarting gateway sends all its members away at once; they come back spread over this span. */
const RESTART_MIN_MS = 500;
const RESTART_MAX_MS = 5_000;

/** Close codes after which another attempt could only end the same way. */
const FINAL_CODES = new Set([1007, 1008, 1009, 4401, 4403, 4404]);

/** The wait in ms before attempt number `attempt` (from 0); `random` gives [0, 1). */
export function backoff(attempt, random) {
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 30));
}

/**
 * What to do about a connection that was open and has been closed.
 *
 * `context`: `{attempt, random, room, origin, maxMessageBytes, online}`.
 * Returns `{retry, delay, title, detail, token}`: `delay` in ms where `retry` is true, `token` where another token would help.
 */
export function afterClose(code, reason, context) {
  const words = closeWords(code, context);
  // What the gateway says is more exact than the table, but a person needs the table's words too.
  const detail = reason ? `${words.detail} The gateway says: “${reason}”.`.trim() : words.detail;
  if (FINAL_CODES.has(code)) {
    return { retry: false, title: words.title, detail, token: code === 4401 };
  }
  const delay =
    code === 1012
      ? RESTART_MIN_MS + context.random() * (RESTART_MAX_MS - RESTART_MIN_MS)
      : backoff(context.attempt, context.random);
  return { retry: true, delay, title: words.title, detail };
}

function closeWords(code, { room, origin, maxMessageBytes, online }) {
  switch (code) {
    case 1007:
      return {
        title: "The gateway could not read a message",
        detail: "It was not valid UTF-8 text, so the connection was closed.",
      };
    case 1008:
      return {
        title: "Closed by the rules of this room",
        detail: "The gateway does not allow what this connection did.",
      };
    case 1009:
      return {
        title: "A message was too big",
        detail: maxMessageBytes
          ? `This room takes messages of up to ${bytes(maxMessageBytes)}.`
          : "It was longer than this room takes.",
      };
    case 1011:
      return { title: "The gateway had a fault", detail: "It is not your doing." };
    case 1012:
      return {
        title: "Moving to another gateway",
        detail: "This one is restarting, or no longer serves the room.",
      };
    case 1013:
      return {
        title: "The gateway asked for a pause",
        detail: "This connection was too slow to keep up, or the gateway has too much to do.",
      };
    case 4401:
      return { title: "The token no longer counts", detail: "" };
    case 4403:
      return { title: "This site may no longer use the room", detail: originRemedy(room, origin) };
    case 4404:
      return { title: "This room is gone", detail: `The room ${room} was removed.` };
    default:
      return online === false
        ? { title: "You are offline", detail: "This device has no network connection." }
        : { title: "Connection lost", detail: "" };
  }
}

/**
 * What to do about a handshake that failed. A browser does not show a page the answer to a refused
 * handshake, so `verdict` is what a plain GET says about it (see `readVerdict`), or null where the
 * gateway could not be reached. Context and result as in `afterClose`.
 */
export function afterRefusal(verdict, context) {
  const { attempt, random, room, origin, online } = context;
  const again = (title, detail, floor = 0) => {
    const delay = Math.max(floor, backoff(attempt, random));
    return { retry: true, delay, title, detail };
  };
  if (verdict === null) {
    return online === false
      ? again("You are offline", "This device has no network connection.")
      : again("The gateway cannot be reached", "");
  }
  if (verdict.accepted) return again("Connecting failed", "The gateway is there; trying again.");
  const { status, reason, title, retryAfter } = verdict;
  const detail = sentence(verdict.detail);
  const stop = (heading, text) => ({ retry: false, title: heading, detail: text });
  if (reason.startsWith("origin_")) {
    return stop("This site may not use the room", originRemedy(room, origin));
  }
  if (reason.startsWith("token_")) return { ...stop(title, detail), token: true };
  if (status === 404) return stop("No such room", `There is no room ${room} here. ${detail}`.trim());
  if (status === 421) {
    return stop("Wrong gateway", detail || `Another pool of gateways serves the room ${room}.`);
  }
  const temporary = status === 408 || status === 425 || status === 429 || status >= 500;
  if (!temporary) return stop(title || "Refused", detail || `The gateway answered ${status}.`);
  // Retry-After is the earliest time, told to everybody alike: jitter keeps them from coming as one.
  const floor = retryAfter > 0 ? retryAfter * 1_000 * (1 + random() / 4) : 0;
  if (status === 429) {
    return again(title || "Too many attempts", detail || "The gateway asks for a pause.", floor);
  }
  if (status === 503) {
    return again(title || "The room has no place now", detail || "It is full or moving.", floor);
  }
  return again(title || "The gateway is in trouble", detail || `It answered ${status}.`, floor);
}

/** A line of the gateway's as a sentence: it writes them without capital letter and full stop. */
function sentence(line) {
  if (line === "") return "";
  const [first] = line;
  return first.toUpperCase() + line.slice(first.length) + (/[.!?]$/.test(line) ? "" : ".");
}

function originRemedy(room, origin) {
  return `This page comes from ${origin}, and the room ${room} does not allow that origin. To let it in, list it in spec.allowedOrigins of the ChatRoom.`;
}

/**
 * The answer to a plain GET, made safe to use: every field has the right type or is absent.
 * `status`: of the HTTP answer; `retryAfter`: its header or null; `body`: the parsed JSON or null.
 */
export function readVerdict(status, retryAfter, body) {
  const given = typeof body === "object" && body !== null ? body : {};
  const text = (value) => (typeof value === "string" ? value : "");
  const count = (value) => (Number.isFinite(value) && value >= 0 ? value : undefined);
  const header = retryAfter === null || retryAfter === "" ? undefined : count(Number(retryAfter));
  return {
    accepted: given.accepted === true,
    status: count(given.status) ?? status,
    reason: text(given.reason),
    title: text(given.title),
    detail: text(given.detail),
    retryAfter: count(given.retryAfter) ?? header,
    room: text(given.room),
    members: count(given.members),
    maxMessageBytes: count(given.maxMessageBytes),
    requireOrigin: given.requireOrigin === true,
    access: text(given.access),
  };
}

/** The address of the room's WebSocket: where this page came from, by the matching scheme. */
export function socketAddress({ protocol, host, pathname }) {
  return `${protocol === "https:" ? "wss:" : "ws:"}//${host}${pathname}`;
}

/** `namespace/name` of a room's path; any other path as it is. */
export function roomOfPath(pathname) {
  const match = /^\/rooms\/([^/]+\/[^/]+)\/?$/.exec(pathname);
  return match ? match[1] : pathname;
}

const encoder = new TextEncoder();

/** How many bytes a text is on the wire (UTF-8); limits count bytes, not letters. */
export function byteLength(text) {
  return encoder.encode(text).length;
}

/** A number of bytes for a person: `1 byte`, `1,024 bytes`. */
export function bytes(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "byte" : "bytes"}`;
}

/** A number of things for a person: `1 message`, `2 messages`. */
export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * What was sent and has not come back. A room sends its members their own messages too, unmarked
 * and in order, so an incoming text is one's own when it equals one that is still out.
 */
export class Outbox {
  #waiting = [];

  add(text, entry) {
    this.#waiting.push({ text, entry });
  }

  /**
   * Takes an incoming text. `own`: the entry it is the copy of, or null. `lost`: entries sent
   * before that one; copies keep their order, so theirs will not come any more.
   */
  take(text) {
    const index = this.#waiting.findIndex((sent) => sent.text === text);
    if (index < 0) return { own: null, lost: [] };
    const taken = this.#waiting.splice(0, index + 1).map((sent) => sent.entry);
    return { own: taken.pop(), lost: taken };
  }

  /** All that is still out, for a connection that has ended. */
  drain() {
    return this.#waiting.splice(0).map((sent) => sent.entry);
  }
}

/** Keeps a history within a number of entries and a total of characters, the newest winning. */
export class Backlog {
  #sizes = [];
  #total = 0;

  constructor(maxEntries, maxCharacters) {
    this.maxEntries = maxEntries;
    this.maxCharacters = maxCharacters;
  }

  /** Takes note of one more entry; returns how many of the oldest must go. The newest stays. */
  add(characters) {
    this.#sizes.push(characters);
    this.#total += characters;
    let drop = 0;
    const over = () =>
      this.#sizes.length - drop > this.maxEntries || this.#total > this.maxCharacters;
    while (drop < this.#sizes.length - 1 && over()) {
      this.#total -= this.#sizes[drop];
      drop += 1;
    }
    this.#sizes.splice(0, drop);
    return drop;
  }
}
