// What the tests run against: real gateways and a real nats-server on free ports of the loopback
// interface, and a forwarder in front of gateways, as a load balancer stands there in production.
// All of it belongs to one `Site`, which at its end stops what it started and nothing else.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { until } from "./until.mjs";

const HOST = "127.0.0.1";

export class Site {
  #endings = [];
  #directory;

  /** Creates a site whose end comes with that of the test `t`. */
  static async create(t) {
    const site = new Site();
    t.after(() => site.#end());
    site.#directory = await mkdtemp(join(tmpdir(), "hubbub-browser-"));
    return site;
  }

  /**
   * Declares the rooms: `{"demo/lobby": spec, …}`. Gateways that run follow the change. The file is
   * replaced as a whole, so that none can read half of it.
   */
  async declare(rooms) {
    const documents = Object.entries(rooms).map(([room, spec]) => {
      const [namespace, name] = room.split("/");
      const metadata = { name, namespace };
      // JSON is YAML.
      return JSON.stringify({ apiVersion: "hubbub.dev/v1alpha1", kind: "ChatRoom", metadata, spec });
    });
    const path = join(this.#directory, "rooms.yaml");
    await writeFile(`${path}.new`, documents.join("\n---\n"));
    await rename(`${path}.new`, path);
    return path;
  }

  /** Starts nats-server; returns its URL. */
  async nats() {
    const server = this.#start(binary("HUBBUB_NATS_SERVER"), [
      ...["--addr", HOST, "--port", "-1", "--ports_file_dir", this.#directory],
    ]);
    const file = join(this.#directory, `nats-server_${server.child.pid}.ports`);
    const urls = await until("nats-server says where it listens", async () => {
      server.check();
      return JSON.parse(await readFile(file, "utf8").catch(() => "null"));
    });
    return urls.nats[0];
  }

  /** Starts a gateway on the declared rooms and returns it once it is ready. */
  async gateway(...flags) {
    const rooms = join(this.#directory, "rooms.yaml");
    const gateway = this.#start(binary("HUBBUB_GATEWAY"), [
      ...["--listen", `${HOST}:0`, "--admin-listen", `${HOST}:0`, "--rooms", rooms],
      ...["--drain-settle", "0s", "--drain-window", "1s", ...flags],
    ]);
    const { listen, admin } = await until("a gateway serves", () => {
      gateway.check();
      return gateway.lines.find((line) => line.message === "serving");
    });
    gateway.port = Number(listen.split(":").pop());
    gateway.origin = `http://${HOST}:${gateway.port}`;
    gateway.admin = `http://${admin}`;
    gateway.ready = async () => (await status(`http://${admin}/readyz`)) === 200;
    await until("a gateway is ready", () => gateway.ready());
    return gateway;
  }

  /**
   * One address for the gateways in `behind`, a list that may change: each new connection goes to
   * the first that is ready. Returns `{origin, behind}`.
   */
  async front(...behind) {
    const open = new Set();
    const server = createServer(async (client) => {
      open.add(client);
      client.on("close", () => open.delete(client)).on("error", () => {});
      for (const gateway of behind) {
        if (!(await gateway.ready())) continue;
        const upstream = connect(gateway.port, HOST);
        upstream.on("error", () => client.destroy()).on("close", () => client.destroy());
        client.on("close", () => upstream.destroy());
        client.pipe(upstream).pipe(client);
        return;
      }
      client.destroy();
    });
    await new Promise((listening) => server.listen(0, HOST, listening));
    this.#endings.push(() => {
      open.forEach((client) => client.destroy());
      return new Promise((closed) => server.close(closed));
    });
    return { origin: `http://${HOST}:${server.address().port}`, behind };
  }

  #start(program, flags) {
    const child = spawn(program, flags, { stdio: ["ignore", "pipe", "pipe"] });
    const lines = [];
    const ended = new Promise((resolve) => {
      child.on("error", (error) => resolve(error.message));
      child.on("exit", (code, signal) => resolve(signal ?? code));
    });
    let over = false;
    ended.then(() => (over = true));
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => lines.push(entry(line)));
    }
    const check = () => {
      if (!over) return;
      const said = lines.map((line) => line.text).join("\n");
      throw new Error(`${program} ${flags.join(" ")} has ended:\n${said}`);
    };
    this.#endings.push(async () => {
      child.kill("SIGKILL");
      await ended;
    });
    return { child, lines, ended, check };
  }

  async #end() {
    for (const end of this.#endings.reverse()) await end();
    await rm(this.#directory, { recursive: true });
  }
}

/** The program that an environment variable names. */
function binary(variable) {
  const path = process.env[variable];
  if (!path) throw new Error(`set ${variable} to the path of the program to test against`);
  return path;
}

/** A log line: its fields, and as `text` all of it. */
function entry(text) {
  try {
    const { fields, ...rest } = JSON.parse(text);
    return { ...rest, ...fields, text };
  } catch {
    return { text };
  }
}

/** The status that a plain GET is answered with; 0 where nobody answers. */
function status(url) {
  return new Promise((resolve) => {
    get(url, { agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    }).on("error", () => resolve(0));
  });
}
