// @xmpp/client, unmodified, as somebody at a domain: signs in, asks the server what it can do, sends and waits for a message.
// Arguments: service, domain, local part, password, to, text. One line of JSON says what it saw.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../web/package.json", import.meta.url));
const { client, xml } = await import(require.resolve("@xmpp/client"));
const [service, domain, username, password, to, text] = process.argv.slice(2);
const entity = client({ service, domain, username, password });
const seen = { secure: false, features: [], message: null };

const answered = new Promise((resolve) => {
  entity.on("stanza", (stanza) => {
    if (stanza.is("message") && stanza.getChildText("body")) {
      seen.message = { from: stanza.attrs.from, body: stanza.getChildText("body") };
      resolve();
    }
  });
});
entity.on("error", (error) => console.error(error));
entity.on("online", async (address) => {
  seen.address = address.toString();
  seen.secure = entity.isSecure();
  const info = await entity.iqCaller.get(xml("query", "http://jabber.org/protocol/disco#info"), domain);
  seen.features = info.getChildren("feature").map((feature) => feature.attrs.var);
  await entity.send(xml("presence"));
  await entity.send(xml("message", { to, type: "chat" }, xml("body", {}, text)));
});
setTimeout(() => process.exit(3), 40_000).unref();
await entity.start();
await answered;
await entity.stop();
console.log(JSON.stringify(seen));
