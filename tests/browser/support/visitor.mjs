// Chromium, and visitors who have a room's page open in it. A visitor keeps what a test wants to
// judge afterwards: requests, sockets, errors on the console, and what the policy stopped.

import assert from "node:assert/strict";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

import { chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
const FLAGS = [
  ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update"],
];

/** Starts Chromium for the tests of one file, which closes it. */
export function startBrowser() {
  return chromium.launch({ executablePath: program(), args: FLAGS });
}

function program() {
  if (process.env.HUBBUB_CHROMIUM) return process.env.HUBBUB_CHROMIUM;
  const directories = (process.env.PATH ?? "").split(delimiter);
  for (const path of NAMES.flatMap((name) => directories.map((one) => join(one, name)))) {
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      // The next one, then.
    }
  }
  throw new Error("no Chromium in PATH: install one (Debian: chromium) or set HUBBUB_CHROMIUM");
}

export class Visitor {
  /** Addresses of all requests, of handshakes as well. */
  requests = [];
  /** Errors and warnings on the console, uncaught errors, and violations of the policy. */
  complaints = [];

  /**
   * Opens `url`. `fakeClock`: the page's time can be put forward (`"paused"`: it stands still from
   * the start); `before`: runs before its script; the other options are those of a Playwright context.
   */
  static async open(t, browser, url, { fakeClock = false, before, ...options } = {}) {
    const visitor = new Visitor();
    const context = await browser.newContext({ reducedMotion: "reduce", ...options });
    t.after(() => context.close());
    const page = (visitor.page = await context.newPage());
    page.setDefaultTimeout(60_000);
    page.on("request", (request) => visitor.requests.push(request.url()));
    page.on("websocket", (socket) => visitor.requests.push(socket.url()));
    page.on("pageerror", (error) => visitor.complaints.push(error.message));
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) visitor.complaints.push(message.text());
    });
    await page.exposeFunction("complain", (text) => visitor.complaints.push(text));
    await page.addInitScript(() => {
      globalThis.handshakes = 0;
      globalThis.WebSocket = class extends WebSocket {
        constructor(address, protocols) {
          super(address, protocols);
          globalThis.handshakes += 1;
        }
      };
      document.addEventListener("securitypolicyviolation", (event) => {
        globalThis.complain(`${event.violatedDirective} stopped ${event.blockedURI}`);
      });
    });
    if (before) await page.addInitScript(before);
    if (fakeClock) await page.clock.install();
    if (fakeClock === "paused") await page.clock.pauseAt(Date.now() + 3_600_000);
    await page.goto(url);
    return visitor;
  }

  /** Waits until the page says that it is in this state. */
  async state(name) {
    await this.page.locator(`body[data-state="${name}"]`).waitFor();
  }

  async write(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.keyboard.press("Enter");
  }

  /** Waits until the history shows this text (as all of a message). */
  async sees(text) {
    await this.messages(text).first().waitFor();
  }

  /** The delivered messages of exactly this text. */
  messages(text) {
    const lines = this.page.locator("#lines .what");
    const whole = new RegExp(`^${text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}$`);
    return lines.filter({ hasText: whole });
  }

  /** Waits for the reason why there is no connection; returns all its words. */
  async reason(pattern) {
    const banner = this.page.locator("#banner");
    await banner.filter({ hasText: pattern }).waitFor();
    return banner.innerText();
  }

  /** How many handshakes the page has begun. */
  handshakes() {
    return this.page.evaluate(() => globalThis.handshakes);
  }

  /** Nothing was wrong in this page. */
  assertCalm() {
    assert.deepEqual(this.complaints, []);
  }
}
