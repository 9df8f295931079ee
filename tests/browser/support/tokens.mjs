// An issuer of tokens with a key of its own.

import { generateKeyPairSync, sign } from "node:crypto";

const encoded = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

export class Issuer {
  #keys = generateKeyPairSync("ec", { namedCurve: "P-256" });

  /** What a room's `spec.auth` says of tokens that this issuer signs. */
  get jwt() {
    const key = { ...this.#keys.publicKey.export({ format: "jwk" }), alg: "ES256", kid: "one" };
    return {
      issuer: "https://id.example.com/",
      audiences: ["chat"],
      jwks: { inline: JSON.stringify({ keys: [key] }) },
    };
  }

  /** A token that is good for so many seconds, with further claims. */
  token(seconds, claims = {}) {
    const now = Math.floor(Date.now() / 1000);
    const all = { iss: "https://id.example.com/", aud: "chat", exp: now + seconds, ...claims };
    const message = `${encoded({ alg: "ES256", kid: "one" })}.${encoded(all)}`;
    const signature = sign("sha256", Buffer.from(message), {
      key: this.#keys.privateKey,
      dsaEncoding: "ieee-p1363",
    });
    return `${message}.${signature.toString("base64url")}`;
  }
}
