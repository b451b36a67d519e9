// Node's fetch as it comes: it says which codings it takes unasked. Arguments: URL, file with the body, folder.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { deflateSync, gzipSync } from "node:zlib";

const [url, file, results] = process.argv.slice(2);
const body = await readFile(file);

async function ask(name, sent, headers = {}, options = {}) {
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: sent,
    ...options,
  });
  const read = Buffer.from(await answer.arrayBuffer());
  await writeFile(join(results, name), Buffer.concat([Buffer.from(`${answer.status}\n`), read]));
}

for (let i = 0; i < 20; i++) await ask("plain", body);
await ask("chunked", new Blob([body]).stream(), {}, { duplex: "half" });
await ask("gzip", gzipSync(body), { "Content-Encoding": "gzip" });
await ask("deflate", deflateSync(body), { "Content-Encoding": "deflate" });
await Promise.all(Array.from({ length: 20 }, (_, at) => ask(`together${at || ""}`, body)));
