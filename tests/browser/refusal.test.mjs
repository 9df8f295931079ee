// Reasons in words: who may not enter, who may not stay, and what is too long.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Site } from "./support/processes.mjs";
import { until } from "./support/until.mjs";
import { Visitor, startBrowser } from "./support/visitor.mjs";

const PATH = "/rooms/demo/lobby";
const ELSEWHERE = "https://chat.example.com";

let browser;
before(async () => (browser = await startBrowser()));
after(() => browser?.close());

/** A site with one gateway behind an address that is known before the rooms are declared. */
async function one(t, spec) {
  const site = await Site.create(t);
  const front = await site.front();
  await site.declare({ "demo/lobby": spec(front.origin) });
  front.behind.push(await site.gateway());
  return { site, front };
}

/** What the gateway tells a page of this origin now. */
async function verdict(front) {
  return (await fetch(`${front.origin}${PATH}?origin=${front.origin}`)).json();
}

/** The page has given up, and stays so: ten minutes later it has not knocked again. */
async function assertGivenUp(visitor) {
  await visitor.state("closed");
  const handshakes = await visitor.handshakes();
  await visitor.page.clock.fastForward("10:00");
  assert.equal(await visitor.handshakes(), handshakes);
  assert.equal(await visitor.page.locator("#state").innerText(), "Disconnected");
  await visitor.page.getByRole("button", { name: "Try again" }).waitFor();
}

test("a refused origin is named, with what would let it in", async (t) => {
  const { front } = await one(t, () => ({ allowedOrigins: [ELSEWHERE] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: true });
  const reason = await visitor.reason("This site may not use the room");
  assert.ok(reason.includes(front.origin), reason);
  assert.ok(reason.includes("demo/lobby"), reason);
  assert.ok(reason.includes("spec.allowedOrigins"), reason);
  // By that name the gateway's log and traces tell of the refusal.
  assert.match(await visitor.page.locator("#connection-name").innerText(), /^[0-9a-f]{16}$/);
  await assertGivenUp(visitor);
  assert.equal(await visitor.handshakes(), 1);
  for (const control of [visitor.page.getByLabel("Message", { exact: true }), visitor.page.locator("#send")]) {
    assert.ok(await control.isDisabled(), "there is nobody to write to");
  }
});

test("who writes when the origin is taken off the list keeps text and focus", async (t) => {
  const { site, front } = await one(t, (origin) => ({ allowedOrigins: [origin] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  await visitor.state("open");
  const box = visitor.page.getByLabel("Message", { exact: true });
  await box.fill("half a sen");
  await site.declare({ "demo/lobby": { allowedOrigins: [ELSEWHERE] } });
  await visitor.state("closed");
  assert.ok(await box.isDisabled());
  assert.equal(await visitor.page.evaluate(() => document.activeElement.id), "now");
  await site.declare({ "demo/lobby": { allowedOrigins: [front.origin] } });
  await until("the gateway has the list", async () => (await verdict(front)).accepted);
  await visitor.page.keyboard.press("Enter");
  await visitor.state("open");
  assert.ok(await box.isEnabled());
  await visitor.page.keyboard.type("tence");
  await visitor.page.keyboard.press("Enter");
  await visitor.sees("half a sentence");
});

test("the page says that a program must send an origin where the room requires one", async (t) => {
  const { site, front } = await one(t, () => ({ allowedOrigins: ["*"] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  const remark = visitor.page.getByText("must send an Origin header");
  await remark.waitFor();
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"], requireOrigin: false } });
  await remark.waitFor({ state: "hidden" });
});

test("after the room lets the origin in, a person can try again", async (t) => {
  const { site, front } = await one(t, () => ({ allowedOrigins: [ELSEWHERE] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  await visitor.state("closed");
  await site.declare({ "demo/lobby": { allowedOrigins: [ELSEWHERE, front.origin] } });
  await until("the gateway has the new list", async () => (await verdict(front)).accepted);
  await visitor.page.getByRole("button", { name: "Try again" }).click();
  await visitor.state("open");
  await visitor.write("let in");
  await visitor.sees("let in");
});

test("an origin that is taken off the list is told so and does not come back", async (t) => {
  const { site, front } = await one(t, (origin) => ({ allowedOrigins: [origin] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: true });
  await visitor.state("open");
  await site.declare({ "demo/lobby": { allowedOrigins: [ELSEWHERE] } });
  const reason = await visitor.reason("This site may no longer use the room");
  assert.ok(reason.includes(front.origin), reason);
  assert.ok(reason.includes("spec.allowedOrigins"), reason);
  await assertGivenUp(visitor);
  assert.equal(await visitor.handshakes(), 1);
});

test("a room that is removed is told as gone, and nobody comes back to it", async (t) => {
  const { site, front } = await one(t, () => ({ allowedOrigins: ["*"] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: true });
  await visitor.state("open");
  await site.declare({ "demo/another": { allowedOrigins: ["*"] } });
  const reason = await visitor.reason("This room is gone");
  assert.ok(reason.includes("demo/lobby"), reason);
  await assertGivenUp(visitor);
  assert.equal(await visitor.handshakes(), 1);

  // Trying again is answered by the plain GET, in words as well.
  await visitor.page.getByRole("button", { name: "Try again" }).click();
  await visitor.reason("No such room");
  await assertGivenUp(visitor);
});

test("an address without a room gets a page that says so", async (t) => {
  const { front } = await one(t, () => ({ allowedOrigins: ["*"] }));
  const visitor = await Visitor.open(t, browser, `${front.origin}/rooms/demo/lobbby`);
  assert.equal(await visitor.page.getByRole("heading").innerText(), "No such room");
  await visitor.page.getByText("404").waitFor();
});

test("a text over the room's limit is refused in words, counted in bytes", async (t) => {
  const { front } = await one(t, () => ({ allowedOrigins: ["*"], limits: { maxMessageBytes: 64 } }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  const sent = [];
  visitor.page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => sent.push(payload)));
  await visitor.page.reload();
  await visitor.page.getByText("0 / 64 bytes").waitFor();

  // 33 letters, 66 bytes.
  await visitor.write("ü".repeat(33));
  const problem = visitor.page.getByRole("alert");
  await problem.filter({ hasText: "Too long: this room takes 64 bytes. Shorten it by 2 bytes." }).waitFor();
  await visitor.page.getByText("66 / 64 bytes").waitFor();
  const box = visitor.page.getByLabel("Message", { exact: true });
  assert.equal(await box.getAttribute("aria-invalid"), "true");
  assert.equal(await box.inputValue(), "ü".repeat(33), "the text is kept");

  await visitor.write("ü".repeat(32));
  await visitor.sees("ü".repeat(32));
  assert.deepEqual(sent, ["ü".repeat(32)]);
  assert.equal(await problem.innerText(), "");
});

test("a limit lowered meanwhile ends the connection, and the words name the new limit", async (t) => {
  const { site, front } = await one(t, () => ({ allowedOrigins: ["*"] }));
  const visitor = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: true });
  await visitor.page.getByText("0 / 512 bytes").waitFor();
  // The page, its time standing still, does not ask again.
  await visitor.page.clock.pauseAt(Date.now() + 3_600_000);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"], limits: { maxMessageBytes: 64 } } });
  await until("the gateway has the new limit", async () => {
    return (await verdict(front)).maxMessageBytes === 64;
  });
  await visitor.write("x".repeat(65));
  const reason = await visitor.reason("A message was too big");
  assert.ok(reason.includes("64 bytes"), reason);
  await assertGivenUp(visitor);
});

test("a full room is waited for as long as the gateway says", async (t) => {
  const { front } = await one(t, () => ({ allowedOrigins: ["*"], limits: { maxConnections: 1 } }));
  const inside = await Visitor.open(t, browser, front.origin + PATH);
  await inside.state("open");
  const outside = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: "paused" });
  await outside.reason("Room full");
  await outside.state("waiting");
  const { retryAfter } = await verdict(front);
  assert.ok(retryAfter > 0);
  const seconds = Number((await outside.page.locator("#state").innerText()).match(/\d+/)[0]);
  assert.ok(seconds >= retryAfter && seconds <= Math.ceil(retryAfter * 1.25), `${seconds} s`);
  assert.equal(await outside.handshakes(), 1);

  await inside.page.close();
  await until("the place is free", async () => (await verdict(front)).accepted);
  await outside.page.getByRole("button", { name: "Connect now" }).click();
  await outside.state("open");
});
