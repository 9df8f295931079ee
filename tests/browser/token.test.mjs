// Rooms that ask for a token: the page asks for it, says what is wrong with it, and lets in who has a good one.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Site } from "./support/processes.mjs";
import { Issuer } from "./support/tokens.mjs";
import { Visitor, startBrowser } from "./support/visitor.mjs";

const PATH = "/rooms/demo/lobby";

let browser;
before(async () => (browser = await startBrowser()));
after(() => browser?.close());

async function guarded(t, issuer) {
  const site = await Site.create(t);
  const front = await site.front();
  await site.declare({
    "demo/lobby": { allowedOrigins: [front.origin], auth: { jwt: { ...issuer.jwt, leeway: "0s" } } },
  });
  front.behind.push(await site.gateway());
  return front;
}

async function enter(visitor, token) {
  const box = visitor.page.getByLabel("Token", { exact: true });
  await box.fill(token);
  await visitor.page.getByRole("button", { name: "Enter" }).click();
}

test("a token lets in who types it, and says what is wrong with a bad one", async (t) => {
  const issuer = new Issuer();
  const front = await guarded(t, issuer);
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  await visitor.reason("Token needed");
  assert.equal(await visitor.page.evaluate(() => document.activeElement.id), "token");
  await enter(visitor, new Issuer().token(60));
  const reason = await visitor.reason("Token not accepted");
  assert.ok(reason.includes("signature"), reason);
  await enter(visitor, issuer.token(3600));
  await visitor.state("open");
  await visitor.page.getByLabel("Message", { exact: true }).fill("with a token");
  await visitor.page.keyboard.press("Enter");
  await visitor.sees("with a token");
  assert.ok(await visitor.page.getByLabel("Token", { exact: true }).isHidden());
});

test("an expired token ends the visit, and who may only read cannot write", async (t) => {
  const issuer = new Issuer();
  const front = await guarded(t, issuer);
  const visitor = await Visitor.open(t, browser, front.origin + PATH);
  await visitor.reason("Token needed");
  await enter(visitor, issuer.token(4));
  await visitor.state("open");
  const reason = await visitor.reason("The token no longer counts");
  assert.ok(reason.includes("expired"), reason);
  await enter(visitor, issuer.token(3600, { hubbub: { read: "demo/*" } }));
  await visitor.state("open");
  const box = visitor.page.getByPlaceholder("You may only read here");
  await box.waitFor();
  assert.ok(await box.isDisabled());
});
