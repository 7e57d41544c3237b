/** Durations and bytes as the API writes them. */

/** Milliseconds as the API writes durations: `1m 30s`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms) || ms < 0) throw new TypeError(`${ms} is no duration in milliseconds`);
  const parts: [string, number][] = [
    ["d", 86_400_000],
    ["h", 3_600_000],
    ["m", 60_000],
    ["s", 1000],
    ["ms", 1],
  ];
  let rest = Math.round(ms);
  const said: string[] = [];
  for (const [unit, length] of parts) {
    const count = Math.floor(rest / length);
    if (count > 0) said.push(`${count}${unit}`);
    rest -= count * length;
  }
  return said.join(" ") || "0ms";
}

/** What {@link duration} wrote, in milliseconds; nothing where it is none. */
export function readDuration(text: unknown): number | undefined {
  if (typeof text !== "string") return undefined;
  const units: Record<string, number> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 };
  let sum = 0;
  for (const part of text.split(" ")) {
    const [, number, unit = ""] = /^(\d+)([a-z]+)$/.exec(part) ?? [];
    const length = units[unit];
    if (length === undefined) return undefined;
    sum += Number(number) * length;
  }
  return sum;
}

/** Bytes as base64. */
export function toBase64(bytes: Uint8Array): string {
  let text = "";
  // In pieces: a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 8192) {
    text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  }
  return btoa(text);
}

/** What base64 says, padded or not; nothing where it is none. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** Bytes as hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What hexadecimal digits say; nothing where they are none. */
export function fromHex(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^([0-9a-fA-F]{2})*$/.test(text)) return undefined;
  const bytes = new Uint8Array(text.length / 2);
  for (let at = 0; at < bytes.length; at += 1) {
    bytes[at] = Number.parseInt(text.slice(2 * at, 2 * at + 2), 16);
  }
  return bytes;
}

/** The SHA-256 of bytes, as hexadecimal digits. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));
}
