// Rooms in use: two gateways as one, a gateway that goes in order, and gateways that are gone.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Site } from "./support/processes.mjs";
import { until } from "./support/until.mjs";
import { Visitor, startBrowser } from "./support/visitor.mjs";

const PATH = "/rooms/demo/lobby";

let browser;
before(async () => (browser = await startBrowser()));
after(() => browser?.close());

/** Two gateways joined by NATS. */
async function pair(t) {
  const site = await Site.create(t);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"] } });
  const nats = await site.nats();
  const [first, second] = await Promise.all(
    ["a", "b"].map((id) => site.gateway("--nats", nats, "--gateway-id", id)),
  );
  return { site, first, second };
}

test("two pages on two gateways chat both ways", async (t) => {
  const { first, second } = await pair(t);
  const ann = await Visitor.open(t, browser, first.origin + PATH);
  const bob = await Visitor.open(t, browser, second.origin + PATH);
  await Promise.all([ann.state("open"), bob.state("open")]);

  await ann.write("Hello from the first gateway");
  await bob.sees("Hello from the first gateway");
  await bob.write("Hello from the second — ü 👋\nin two lines");
  await ann.sees("Hello from the second — ü 👋\nin two lines");

  // Each knows its own messages from those of the other.
  const own = (visitor) => visitor.page.locator("#lines .own .what").allInnerTexts();
  await until("Bob's own copy is back", async () => (await own(bob)).length === 1);
  assert.deepEqual(await own(ann), ["Hello from the first gateway"]);
  assert.deepEqual(await own(bob), ["Hello from the second — ü 👋\nin two lines"]);
  assert.equal(await ann.page.locator("#outgoing .line").count(), 0);

  // The count spans the gateways.
  for (const visitor of [ann, bob]) {
    await visitor.page.getByText("2 members", { exact: true }).waitFor();
    visitor.assertCalm();
  }
});

test("a drain moves a page to the other gateway, and it misses nothing said after", async (t) => {
  const { site, first, second } = await pair(t);
  const front = await site.front(first, second);
  const mover = await Visitor.open(t, browser, front.origin + PATH);
  const other = await Visitor.open(t, browser, second.origin + PATH);
  await Promise.all([mover.state("open"), other.state("open")]);
  await mover.write("before the drain");
  await other.sees("before the drain");

  first.child.kill("SIGTERM");
  await mover.state("waiting");
  await mover.reason("Moving to another gateway");
  await mover.state("open");
  assert.equal(await mover.handshakes(), 2, "one handshake before, one after");
  assert.equal(await first.ended, 0, "the gateway that drained ends in order");

  await other.write("after the drain, to the page that moved");
  await mover.sees("after the drain, to the page that moved");
  await mover.write("after the drain, from the page that moved");
  await other.sees("after the drain, from the page that moved");
  await mover.sees("after the drain, from the page that moved");
  for (const visitor of [mover, other]) {
    const texts = await visitor.page.locator("#lines .what").allInnerTexts();
    assert.deepEqual(texts, [
      "before the drain",
      "after the drain, to the page that moved",
      "after the drain, from the page that moved",
    ]);
    assert.equal(await visitor.page.locator("#outgoing .line").count(), 0);
    visitor.assertCalm();
  }
  await mover.page.getByText("What was said in between is not shown here").waitFor();
});

test("a page whose gateway is gone says so, and a person can bring it back at once", async (t) => {
  const site = await Site.create(t);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"] } });
  const gateway = await site.gateway();
  const front = await site.front(gateway);
  const visitor = await Visitor.open(t, browser, front.origin + PATH, { fakeClock: true });
  await visitor.state("open");
  await visitor.page.clock.pauseAt(Date.now() + 3_600_000);

  gateway.child.kill("SIGKILL");
  await visitor.reason("Connection lost");
  assert.match(await visitor.page.locator("#state").innerText(), /^Reconnecting in \d+ s$/);
  assert.equal(await visitor.handshakes(), 1);
  // Longer than the longest first wait: it tries by itself, in vain, and says why.
  await visitor.page.clock.runFor(1_001);
  await visitor.reason("The gateway cannot be reached");
  await visitor.state("waiting");
  assert.equal(await visitor.handshakes(), 2);

  await visitor.write("kept while away");
  await visitor.page.getByText("Not connected. Your text stays here").waitFor();

  front.behind.push(await site.gateway());
  await visitor.page.getByRole("button", { name: "Connect now" }).press("Enter");
  await visitor.state("open");
  assert.equal(await visitor.page.getByRole("alert").innerText(), "", "connected, so that is over");
  assert.equal(await visitor.handshakes(), 3);
  // The button that had the focus is gone; the focus is where one writes, with the text still there.
  await visitor.page.keyboard.press("Enter");
  await visitor.page.clock.runFor(1_000);
  await visitor.sees("kept while away");
});

test("the first message after a quiet while brings the member count up to date", async (t) => {
  const site = await Site.create(t);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"] } });
  const { origin } = await site.gateway();
  const visitor = await Visitor.open(t, browser, origin + PATH, { fakeClock: true });
  const heard = new Promise((resolve) => {
    visitor.page.on("websocket", (socket) => socket.on("framereceived", resolve));
  });
  await visitor.page.reload();
  await visitor.page.getByText("1 member", { exact: true }).waitFor();
  const asked = () => visitor.requests.filter((address) => address.includes("?origin=")).length;
  let before = asked();
  // From here on the page's time goes by only as this test says, in all less than until the next regular question.
  await visitor.page.clock.pauseAt(Date.now() + 3_600_000);
  await until("the question that was due is asked", () => asked() > before);
  before = asked();
  const other = await Visitor.open(t, browser, origin + PATH);
  await other.state("open");
  await visitor.page.clock.runFor(100);
  assert.equal(await visitor.page.getByText("2 members", { exact: true }).count(), 0);

  await other.write("hello");
  await heard;
  let gone = 0;
  await until("the count is right", async () => {
    if (gone < 2_000) await visitor.page.clock.runFor(100);
    gone += 100;
    return visitor.page.getByText("2 members", { exact: true }).isVisible();
  });
  assert.equal(asked(), before + 1);
});

test("a message whose copy never came back is kept, and can be sent again", async (t) => {
  const site = await Site.create(t);
  await site.declare({ "demo/lobby": { allowedOrigins: ["*"] } });
  const gateway = await site.gateway();
  const front = await site.front(gateway);
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  await visitor.state("open");

  gateway.child.kill("SIGSTOP");
  await visitor.write("into the void");
  await visitor.page.locator("#outgoing", { hasText: "into the void" }).waitFor();
  front.behind.unshift(await site.gateway());
  gateway.child.kill("SIGKILL");
  await visitor.page.getByText("May not have reached the room.").waitFor();
  await visitor.state("open");
  await visitor.page.getByRole("button", { name: "Send again" }).click();
  await visitor.sees("into the void");
  assert.equal(await visitor.messages("into the void").count(), 1);
  assert.equal(await visitor.page.locator("#outgoing .line").count(), 0);
});
