// The decisions of the room's page, tested on the source that the gateway writes into the page.

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import {
  Backlog,
  Outbox,
  afterClose,
  afterRefusal,
  backoff,
  byteLength,
  bytes,
  plural,
  readVerdict,
  roomOfPath,
  socketAddress,
} from "../../crates/gateway/page/policy.mjs";

const LOW = () => 0;
const HIGH = () => 1 - Number.EPSILON;
const context = {
  attempt: 0,
  random: HIGH,
  room: "demo/lobby",
  origin: "http://chat.test",
  maxMessageBytes: 512,
  online: true,
};

describe("backoff", () => {
  test("is drawn from zero to a ceiling that doubles up to 30 s", () => {
    const ceilings = [0, 1, 2, 3, 4, 5, 6, 50, 5_000].map((attempt) => {
      assert.equal(backoff(attempt, LOW), 0);
      return Math.round(backoff(attempt, HIGH));
    });
    assert.deepEqual(ceilings, [
      1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000,
    ]);
  });
});

describe("after a close", () => {
  for (const code of [1007, 1008, 1009, 4403, 4404]) {
    test(`${code} does not come back`, () => {
      const decision = afterClose(code, "", context);
      assert.equal(decision.retry, false);
      assert.ok(decision.title && decision.detail, "says nothing");
    });
  }

  test("1012 comes back after 0.5 to 5 s, however many attempts failed before", () => {
    for (const attempt of [0, 9]) {
      const soonest = afterClose(1012, "", { ...context, attempt, random: LOW });
      const latest = afterClose(1012, "", { ...context, attempt, random: HIGH });
      assert.deepEqual([soonest.retry, soonest.delay], [true, 500]);
      assert.deepEqual([latest.retry, Math.round(latest.delay)], [true, 5_000]);
    }
  });

  for (const code of [1000, 1001, 1002, 1005, 1006, 1011, 1013, 4000]) {
    test(`${code} comes back with backoff`, () => {
      const decision = afterClose(code, "", { ...context, attempt: 3 });
      assert.deepEqual([decision.retry, Math.round(decision.delay)], [true, 8_000]);
      assert.ok(decision.title);
    });
  }

  test("1009 names the limit in bytes where it is known", () => {
    assert.match(afterClose(1009, "", context).detail, /512 bytes/);
    const unknown = afterClose(1009, "", { ...context, maxMessageBytes: undefined });
    assert.doesNotMatch(unknown.detail, /undefined/);
  });

  test("4403 names the origin, the room, and where to allow it", () => {
    const { detail } = afterClose(4403, "", context);
    for (const part of ["http://chat.test", "demo/lobby", "spec.allowedOrigins"]) {
      assert.ok(detail.includes(part), `${part} is not in: ${detail}`);
    }
  });

  test("the gateway's own reason is passed on", () => {
    assert.match(afterClose(1008, "too many pings", context).detail, /“too many pings”/);
    assert.equal(afterClose(1006, "", context).detail, "");
  });

  test("a lost connection without a network is called offline", () => {
    assert.match(afterClose(1006, "", { ...context, online: false }).title, /offline/);
  });
});

describe("after a refused handshake", () => {
  const refused = (status, more = {}) => readVerdict(status, null, { accepted: false, ...more });

  for (const [status, word] of [
    [400, /400/],
    [403, /403/],
    [404, /demo\/lobby/],
    [421, /another pool/i],
    [426, /426/],
  ]) {
    test(`${status} is final and said in words`, () => {
      const decision = afterRefusal(refused(status), context);
      assert.equal(decision.retry, false);
      assert.ok(decision.title);
      assert.match(decision.detail, word);
    });
  }

  for (const reason of ["origin_not_allowed", "origin_malformed"]) {
    test(`${reason} names the origin, the room, and where to allow it`, () => {
      const decision = afterRefusal(refused(403, { reason }), context);
      assert.equal(decision.retry, false);
      assert.match(decision.detail, /http:\/\/chat\.test.*demo\/lobby.*spec\.allowedOrigins/);
    });
  }

  test("the gateway's line becomes a sentence", () => {
    const said = (detail) => afterRefusal(refused(400, { detail }), context).detail;
    assert.equal(said("the key is too short"), "The key is too short.");
    assert.equal(said("Mend it!"), "Mend it!");
  });

  for (const status of [408, 425, 429, 500, 502, 503, 504]) {
    test(`${status} comes back with backoff`, () => {
      const decision = afterRefusal(refused(status), { ...context, attempt: 2 });
      assert.deepEqual([decision.retry, Math.round(decision.delay)], [true, 4_000]);
      assert.ok(decision.title && decision.detail);
    });
  }

  test("Retry-After is the earliest time, and not the same one for everybody", () => {
    const verdict = refused(503, { retryAfter: 20, detail: "The room is full." });
    const soonest = afterRefusal(verdict, { ...context, random: LOW });
    const latest = afterRefusal(verdict, { ...context, random: HIGH });
    assert.equal(soonest.delay, 20_000);
    assert.equal(Math.round(latest.delay), 25_000);
    assert.equal(latest.detail, "The room is full.");
  });

  test("backoff may be longer than Retry-After", () => {
    const verdict = refused(503, { retryAfter: 1 });
    assert.equal(Math.round(afterRefusal(verdict, { ...context, attempt: 9 }).delay), 30_000);
  });

  test("no answer, and an answer that would accept, are tried again", () => {
    for (const verdict of [null, readVerdict(200, null, { accepted: true })]) {
      const decision = afterRefusal(verdict, { ...context, attempt: 1 });
      assert.deepEqual([decision.retry, Math.round(decision.delay)], [true, 2_000]);
    }
    assert.match(afterRefusal(null, { ...context, online: false }).title, /offline/);
  });
});

describe("a verdict", () => {
  test("keeps what has the right type", () => {
    const facts = { members: 12, maxMessageBytes: 512, requireOrigin: true, access: "Read" };
    const body = { accepted: true, room: "demo/lobby", ...facts };
    assert.deepEqual(readVerdict(200, null, body), {
      ...body,
      status: 200,
      reason: "",
      title: "",
      detail: "",
      retryAfter: undefined,
    });
  });

  test("of anything else is a refusal with the status of the answer", () => {
    for (const body of [null, "gone", 7, [], { accepted: "true", status: "x", members: -1 }]) {
      const verdict = readVerdict(502, "", body);
      assert.equal(verdict.accepted, false);
      assert.equal(verdict.status, 502);
      assert.equal(verdict.members, undefined);
      assert.equal(verdict.requireOrigin, false);
      assert.equal(verdict.retryAfter, undefined);
    }
  });

  test("takes Retry-After from the body, else from the header, as seconds only", () => {
    assert.equal(readVerdict(503, "7", { retryAfter: 5 }).retryAfter, 5);
    assert.equal(readVerdict(503, "7", null).retryAfter, 7);
    assert.equal(readVerdict(503, "Wed, 21 Oct 2026 07:28:00 GMT", null).retryAfter, undefined);
  });
});

describe("addresses", () => {
  test("the socket's follows the page's", () => {
    const page = { host: "chat.test:8080", pathname: "/rooms/demo/lobby" };
    assert.equal(
      socketAddress({ ...page, protocol: "http:" }),
      "ws://chat.test:8080/rooms/demo/lobby",
    );
    assert.equal(
      socketAddress({ ...page, protocol: "https:" }),
      "wss://chat.test:8080/rooms/demo/lobby",
    );
  });

  test("the room is what stands in the path", () => {
    assert.equal(roomOfPath("/rooms/demo/lobby"), "demo/lobby");
    assert.equal(roomOfPath("/ws"), "/ws");
  });
});

describe("sizes", () => {
  test("are counted in bytes of UTF-8, as the socket sends them", () => {
    for (const [text, length] of [
      ["", 0],
      ["abc", 3],
      ["ü", 2],
      ["€", 3],
      ["👋", 4],
      ["\ud800", 3], // half a letter: goes out as U+FFFD
      ["a\n", 2],
    ]) {
      assert.equal(byteLength(text), length, JSON.stringify(text));
    }
  });

  test("are said in words", () => {
    assert.deepEqual([0, 1, 131_072].map(bytes), ["0 bytes", "1 byte", "131,072 bytes"]);
    assert.deepEqual(
      [0, 1, 2].map((count) => plural(count, "member")),
      ["0 members", "1 member", "2 members"],
    );
  });
});

describe("the outbox", () => {
  test("knows own copies among what others say", () => {
    const outbox = new Outbox();
    outbox.add("hi", 1);
    outbox.add("hi", 2);
    outbox.add("bye", 3);
    const owners = ["hello", "hi", "hi", "bye", "bye"].map((text) => outbox.take(text).own);
    assert.deepEqual(owners, [null, 1, 2, 3, null]);
  });

  test("gives up what a later copy has overtaken", () => {
    const outbox = new Outbox();
    ["a", "b", "c", "d"].forEach((text) => outbox.add(text, text));
    assert.deepEqual(outbox.take("c"), { own: "c", lost: ["a", "b"] });
    assert.deepEqual(outbox.drain(), ["d"]);
    assert.deepEqual(outbox.drain(), []);
  });
});

describe("the backlog", () => {
  test("holds so many entries", () => {
    const backlog = new Backlog(3, 1_000);
    assert.deepEqual(
      [1, 2, 3, 4, 5].map((size) => backlog.add(size)),
      [0, 0, 0, 1, 1],
    );
  });

  test("holds so many characters, but always the newest entry", () => {
    const backlog = new Backlog(100, 10);
    assert.deepEqual(
      [4, 4, 4, 10, 50, 1].map((size) => backlog.add(size)),
      [0, 0, 1, 2, 1, 1],
    );
  });
});
