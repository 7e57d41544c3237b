/** The version of this package; a test holds it against the manifest. */
export const VERSION = "0.1.0";

/** What this client calls itself. */
export const USER_AGENT = `onceward-js/${VERSION}`;
