// The page itself: for everybody's eyes and hands, confined to its origin, and light in a busy room.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import axe from "axe-core";

import { Site } from "./support/processes.mjs";
import { until } from "./support/until.mjs";
import { Visitor, startBrowser } from "./support/visitor.mjs";

const PATH = "/rooms/demo/lobby";
const BUSY = { messagesPerSecond: 1_000_000, burst: 1_000_000, sendQueue: 65_536 };

let browser;
before(async () => (browser = await startBrowser()));
after(() => browser?.close());

async function room(t, limits = {}) {
  const site = await Site.create(t);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"], limits } });
  const gateway = await site.gateway();
  return { site, gateway, url: gateway.origin + PATH };
}

/** Sends raw messages to the room from a socket of its own beside the page's. */
function sendFrom(visitor, count, text) {
  return visitor.page.evaluate(
    async ({ path, count, text }) => {
      const socket = new WebSocket(`ws://${location.host}${path}`);
      await new Promise((open) => (socket.onopen = open));
      // Some at a time: the next ones go when the room has given these back.
      for (let begun = 0; begun < count; ) {
        const end = Math.min(begun + 200, count);
        const back = new Promise((all) => {
          let seen = begun;
          socket.onmessage = () => (seen += 1) === end && all();
        });
        for (; begun < end; begun += 1) socket.send(`${text} ${begun}`);
        await back;
      }
      socket.close();
    },
    { path: PATH, count, text },
  );
}

describe("accessibility", () => {
  const sizes = { wide: { width: 1100, height: 720 }, phone: { width: 320, height: 568 } };
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, viewport] of Object.entries(sizes)) {
      test(`no rule is broken, ${colorScheme}, ${size}`, async (t) => {
        const { site, gateway, url } = await room(t);
        const visitor = await Visitor.open(t, browser, url, { colorScheme, viewport });
        const other = await Visitor.open(t, browser, url);
        await Promise.all([visitor.state("open"), other.state("open")]);
        await assertAccessible(visitor, "empty");

        await other.write("said by somebody else");
        await visitor.write("said by me");
        await other.sees("said by me");
        await other.page.evaluate((path) => {
          const socket = new WebSocket(`ws://${location.host}${path}`);
          socket.onopen = () => socket.send(new Uint8Array(3));
        }, PATH);
        await visitor.sees("binary, 3 bytes");
        await visitor.write("x".repeat(513));
        await visitor.page.getByText(/^Too long/).waitFor();
        await assertAccessible(visitor, "in use, text too long");
        await assertNoSidewaysScroll(visitor);

        gateway.child.kill("SIGSTOP");
        await visitor.write("never comes back");
        gateway.child.kill("SIGKILL");
        await visitor.state("waiting");
        await visitor.page.getByRole("button", { name: "Discard" }).waitFor();
        await assertAccessible(visitor, "waiting, a message in doubt");
        await assertNoSidewaysScroll(visitor);

        await site.declare({ "demo/lobby": { allowedOrigins: ["https://chat.example.com"] } });
        const next = await site.gateway();
        const refused = await Visitor.open(t, browser, next.origin + PATH, {
          colorScheme,
          viewport,
        });
        await refused.state("closed");
        await assertAccessible(refused, "refused");
        await assertNoSidewaysScroll(refused);
        await refused.page.goto(`${next.origin}/rooms/demo/nowhere`);
        await assertAccessible(refused, "error page");
      });
    }
  }

  async function assertAccessible(visitor, when) {
    await visitor.page.evaluate(axe.source);
    const { violations, passes } = await visitor.page.evaluate(() => globalThis.axe.run());
    const told = violations.map(({ id, help, nodes }) => [id, help, ...nodes.map((n) => n.html)]);
    assert.deepEqual(told, [], when);
    assert.ok(passes.length > 10, "the rules did run");
  }

  async function assertNoSidewaysScroll(visitor) {
    const [content, window] = await visitor.page.evaluate(() => {
      const { scrollWidth, clientWidth } = document.documentElement;
      return [scrollWidth, clientWidth];
    });
    assert.ok(content <= window, `${content} pixels of content in ${window}`);
  }

  test("everything is within reach of the keyboard", async (t) => {
    const { url } = await room(t);
    const visitor = await Visitor.open(t, browser, url);
    await visitor.state("open");
    // One may type as soon as the page is connected; the rest lies one step back and one ahead.
    await visitor.page.locator("#text:focus").waitFor();
    const stops = [];
    for (const key of ["Shift+Tab", "Tab", "Tab", "Shift+Tab"]) {
      await visitor.page.keyboard.press(key);
      stops.push(await visitor.page.evaluate(() => document.activeElement.id));
    }
    assert.deepEqual(stops, ["history", "text", "send", "text"]);
    await visitor.page.keyboard.type("first");
    await visitor.page.keyboard.press("Shift+Enter");
    await visitor.page.keyboard.type("second");
    await visitor.page.keyboard.press("Enter");
    await visitor.sees("first\nsecond");
    assert.equal(await visitor.page.getByLabel("Message", { exact: true }).inputValue(), "");
  });

  test("what arrives and what happens to the connection is announced", async (t) => {
    const { gateway, url } = await room(t);
    const visitor = await Visitor.open(t, browser, url);
    const other = await Visitor.open(t, browser, url);
    const status = (text) => visitor.page.getByRole("status").filter({ hasText: text }).waitFor();
    await status("Connected.");
    await other.state("open");
    await other.write("one");
    await status("New message: one");
    await sendFrom(other, 5, "more");
    await status("5 new messages. The last: more 4");
    gateway.child.kill("SIGKILL");
    await status("Connection lost.");
  });
});

test("nothing leaves the origin, and the policy has nothing to stop", async (t) => {
  const { gateway, url } = await room(t);
  const visitor = await Visitor.open(t, browser, url);
  await visitor.state("open");
  await visitor.page.getByText("1 member", { exact: true }).waitFor();
  await visitor.write("all here");
  await visitor.sees("all here");
  const answer = await visitor.page.reload();
  await visitor.state("open");

  const policy = answer.headers()["content-security-policy"];
  assert.match(policy, /^default-src 'none';/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  const origins = new Set(
    visitor.requests
      .filter((address) => !address.startsWith("data:"))
      .map((address) => new URL(address).host),
  );
  assert.deepEqual([...origins], [`127.0.0.1:${gateway.port}`]);
  assert.deepEqual(await visitor.page.context().cookies(), []);
  visitor.assertCalm();
});

test("what members write is shown as text, whatever it looks like", async (t) => {
  const { url } = await room(t);
  const visitor = await Visitor.open(t, browser, url);
  const other = await Visitor.open(t, browser, url);
  await Promise.all([visitor.state("open"), other.state("open")]);
  const markup = `<img src=x onerror="complain('ran')"><script>complain('ran')</script>&lt;b&gt;`;
  await other.write(markup);
  await visitor.sees(markup);
  await other.sees(markup);
  assert.equal(await visitor.page.locator("main img, main script").count(), 0);
  visitor.assertCalm();
  other.assertCalm();
});

test("10,000 messages leave a bounded page with the newest, in order", async (t) => {
  const { url } = await room(t, BUSY);
  const visitor = await Visitor.open(t, browser, url);
  const other = await Visitor.open(t, browser, url);
  await Promise.all([visitor.state("open"), other.state("open")]);
  const before = await visitor.page.locator("*").count();
  await sendFrom(other, 10_000, "message");
  await visitor.sees("message 9999");
  const texts = await visitor.page.locator("#lines .what").allInnerTexts();
  const newest = Array.from({ length: 500 }, (_, index) => `message ${9_500 + index}`);
  assert.deepEqual(texts, newest);
  const after = await visitor.page.locator("*").count();
  assert.ok(after - before <= 500 * 3, `${after - before} elements for 500 lines`);
  assert.equal(await visitor.handshakes(), 1, "the page kept up");
  visitor.assertCalm();
});

test("a reader of older messages keeps the place and is told of new ones", async (t) => {
  const { url } = await room(t, BUSY);
  const visitor = await Visitor.open(t, browser, url);
  const other = await Visitor.open(t, browser, url);
  await Promise.all([visitor.state("open"), other.state("open")]);
  await sendFrom(other, 100, "old");
  await visitor.sees("old 99");
  const fromEnd = () =>
    visitor.page.locator("#history").evaluate((history) => {
      return Math.round(history.scrollHeight - history.scrollTop - history.clientHeight);
    });
  await until("the newest line is in sight", async () => (await fromEnd()) === 0);

  const old = visitor.messages("old 10");
  await old.scrollIntoViewIfNeeded();
  await until("the end is out of sight", async () => (await fromEnd()) > 1_000);
  const place = await old.boundingBox();
  await sendFrom(other, 3, "new");
  const jump = visitor.page.getByRole("button", { name: "3 new messages" });
  await jump.waitFor();
  assert.deepEqual(await old.boundingBox(), place);

  await jump.press("Enter");
  await jump.waitFor({ state: "hidden" });
  await until("the newest line is in sight", async () => (await fromEnd()) === 0);
  await sendFrom(other, 1, "newer");
  await visitor.sees("newer 0");
  await until("new lines are followed again", async () => (await fromEnd()) === 0);
});

test("unread messages are counted in the title until the page is looked at", async (t) => {
  const { url } = await room(t);
  const unwatched = () => (document.hasFocus = () => globalThis.watched === true);
  const visitor = await Visitor.open(t, browser, url, { before: unwatched });
  const other = await Visitor.open(t, browser, url);
  await Promise.all([visitor.state("open"), other.state("open")]);
  assert.equal(await visitor.page.title(), "demo/lobby · Hubbub");
  await sendFrom(other, 2, "unread");
  await until("two are unread", async () => {
    return (await visitor.page.title()) === "(2) demo/lobby · Hubbub";
  });
  await visitor.page.evaluate(() => {
    globalThis.watched = true;
    globalThis.dispatchEvent(new Event("focus"));
  });
  assert.equal(await visitor.page.title(), "demo/lobby · Hubbub");
});

test("the page tells what its connection is called, and the gateway knows it by that", async (t) => {
  const { gateway, url } = await room(t);
  const visitor = await Visitor.open(t, browser, url);
  await visitor.state("open");
  const shown = visitor.page.locator("#connection-name");
  const name = await shown.innerText();
  assert.match(name, /^[0-9a-f]{16}$/);
  const told = await fetch(`${gateway.admin}/rooms?connection=${name}`);
  assert.equal((await told.json()).room, "demo/lobby");

  // It is there to be asked about when the connection is gone, and the next one has a name of its own.
  await visitor.page.context().setOffline(true);
  await visitor.page.context().setOffline(false);
  await until("another connection", async () => (await shown.innerText()) !== name);
  visitor.assertCalm();
});

test("when the network comes back, the page takes a fresh connection", async (t) => {
  const { url } = await room(t);
  const visitor = await Visitor.open(t, browser, url);
  await visitor.state("open");
  await visitor.page.context().setOffline(true);
  await visitor.page.context().setOffline(false);
  await visitor.page.getByText("What was said in between is not shown here").waitFor();
  assert.equal(await visitor.handshakes(), 2);
  await visitor.write("back again");
  await visitor.sees("back again");
  assert.equal(await visitor.messages("back again").count(), 1);
});
