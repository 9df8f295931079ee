import { afterClose, afterRefusal } from "./policy.mjs";

// One member's connection, kept up for as long as that makes sense: connects, waits as the policy
// says, asks for the reason where a handshake fails, and comes back. It knows no DOM; the page is
// told of each change of state. At any time at most one socket is listened to, so that no message
// can be shown twice.

/** A handshake that takes longer is given up; browsers alone would wait for minutes. */
const HANDSHAKE_MS = 15_000;

/** Only a connection that lasted this long ends a series of failures, lest a flapping one hammer. */
const STABLE_MS = 10_000;

/** After the network is back, devices that share it do not all come at the same instant. */
const ONLINE_JITTER_MS = 1_000;

/** A new name for a connection: logs, traces and the gateway's `/rooms?connection=` know it by that. */
function newName() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * States given to `onState`: `{name: "connecting"}`, `{name: "open", again, connection}` (`again`: not
 * the first time; `connection`: what this one is called), `{name: "waiting", until, title, detail}` (`until` in ms since the epoch) and
 * `{name: "closed", title, detail, token}`; the last two with `connection` where a gateway has refused that one.
 */
export class Connection {
  #options;
  #socket = null;
  #timer = undefined;
  #attempt = 0;
  #opened = false;
  #turn = 0;
  #wentOffline = false;

  /**
   * `options`: `address` (of the WebSocket), `token()` (or ""), `ask()` (a promise of the verdict or null), `context()`
   * (`{room, origin, maxMessageBytes, online}`), `onState(state)`, `onMessage(data)`.
   */
  constructor(options) {
    this.#options = options;
  }

  /** Connects at once, whatever the state. */
  connect() {
    this.#leave();
    const turn = this.#turn;
    const current = (handler) => (event) => {
      if (turn === this.#turn) handler(event);
    };
    let openedAt = 0;
    const connection = newName();
    const token = this.#options.token();
    // A browser can send a token in no other header. It ends the connection if none of what it offers is accepted.
    const protocols = token === "" ? [] : ["hubbub.v1", `hubbub.bearer.${token}`];
    const socket = new WebSocket(`${this.#options.address}?connection=${connection}`, protocols);
    this.#socket = socket;
    this.#timer = setTimeout(() => socket.close(), HANDSHAKE_MS);
    socket.addEventListener(
      "open",
      current(() => {
        clearTimeout(this.#timer);
        openedAt = Date.now();
        this.#wentOffline = false;
        const again = this.#opened;
        this.#opened = true;
        this.#options.onState({ name: "open", again, connection });
      }),
    );
    socket.addEventListener(
      "message",
      current((event) => this.#options.onMessage(event.data)),
    );
    socket.addEventListener(
      "close",
      current((event) => {
        this.#leave();
        if (openedAt === 0) this.#explain(connection);
        else {
          if (Date.now() - openedAt >= STABLE_MS) this.#attempt = 0;
          this.#closed(event);
        }
      }),
    );
    this.#options.onState({ name: "connecting" });
  }

  /** Connects at once because a person asked: earlier failures no longer count. */
  connectNow() {
    this.#attempt = 0;
    this.connect();
  }

  /** Sends a text; false where no connection is open. */
  send(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  /** The device has lost its network. The socket is kept: it may live through a short gap. */
  offline() {
    this.#wentOffline = true;
  }

  /**
   * The network is back. A socket from before may be dead without anybody having told the browser,
   * so it is replaced; a wait is cut short; an end for good stays one.
   */
  online() {
    if (!this.#wentOffline) return;
    this.#wentOffline = false;
    const waiting = this.#socket === null && this.#timer !== undefined;
    if (!waiting && this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#leave();
    this.#wait(Math.random() * ONLINE_JITTER_MS, { title: "Back online", detail: "" });
  }

  #context() {
    return { ...this.#options.context(), attempt: this.#attempt, random: Math.random };
  }

  /** Lets go of socket and timer; whatever they still report is not heard. */
  #leave() {
    this.#turn += 1;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#socket?.close();
    this.#socket = null;
  }

  async #closed({ code, reason }) {
    const turn = this.#turn;
    // The words name the limit. A text beyond it was sent, so the limit that is known is out of date.
    if (code === 1009) await this.#options.ask();
    if (turn === this.#turn) this.#follow(afterClose(code, reason, this.#context()));
  }

  /** A handshake has failed: a plain GET tells why. */
  async #explain(name) {
    const turn = this.#turn;
    const verdict = await this.#options.ask();
    if (turn !== this.#turn) return;
    // Where nobody answers, nobody has heard that name either.
    const connection = verdict === null ? undefined : name;
    this.#follow(afterRefusal(verdict, this.#context()), connection);
  }

  #follow(decision, connection) {
    const { retry, delay, title, detail, token } = decision;
    if (!retry) {
      this.#options.onState({ name: "closed", title, detail, token, connection });
      return;
    }
    this.#attempt += 1;
    this.#wait(delay, { title, detail, connection });
  }

  #wait(delay, words) {
    this.#timer = setTimeout(() => this.connect(), delay);
    this.#options.onState({ name: "waiting", until: Date.now() + delay, ...words });
  }
}
