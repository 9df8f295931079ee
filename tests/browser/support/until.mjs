// Waiting for conditions. The limit is only there so that a broken test ends: no test passes or
// fails by how long something takes.

import { setTimeout as pause } from "node:timers/promises";

const GIVE_UP_MS = 60_000;
const LOOK_AGAIN_MS = 20;

/** Asks `condition` until it gives something true, and returns that. */
export async function until(what, condition) {
  const end = Date.now() + GIVE_UP_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`gave up waiting until ${what}`);
    await pause(LOOK_AGAIN_MS);
  }
}
