#!/usr/bin/env node
// Follows the events of a pydockd: one JSON line each.  node monitor.js SOCKET [AFTER]
// AFTER is the number of the last event seen, "oldest" or (the default) "now".  gRPC is HTTP/2, so Node alone is enough.
import http2 from "node:http2";
import net from "node:net";

const [socket, after = "now"] = process.argv.slice(2);

const varint = (buffer, at) => {
  for (let value = 0, weight = 1; ; weight *= 128) {
    const byte = buffer[at++];
    value += (byte & 127) * weight;
    if (byte < 128) return [value, at];
  }
};

// The fields of a protobuf message by number: numbers, or buffers that may be messages in turn.
const fields = (buffer) => {
  const found = {};
  for (let at = 0, tag, value; at < buffer.length; found[Math.floor(tag / 8)] = value) {
    [tag, at] = varint(buffer, at);
    [value, at] = varint(buffer, at);
    if (tag % 8 === 2) [value, at] = [buffer.subarray(at, at + value), at + value];
  }
  return found;
};

const show = (message) => {
  const { 1: time, 2: namespace, 3: topic, 4: event, 1001: sequence } = fields(message);
  const { 1: seconds, 2: nanos = 0 } = fields(time);
  const when = new Date(seconds * 1000 + nanos / 1e6).toISOString();
  console.log(JSON.stringify({ sequence, when, namespace: `${namespace}`, topic: `${topic}`, type: `${fields(event)[1]}` }));
};

const session = http2.connect("http://localhost", { createConnection: () => net.connect(socket) });
const call = session.request({
  ":method": "POST", ":path": "/containerd.services.events.v1.Events/Subscribe",
  "content-type": "application/grpc", te: "trailers", "pydock-events-after": after,
});
call.end(Buffer.alloc(5)); // an empty SubscribeRequest, behind its five bytes of frame
call.on("response", (headers) => console.error(`events ${headers["pydock-events-oldest"]} to ${headers["pydock-events-newest"]}`));

let pending = Buffer.alloc(0);
call.on("data", (data) => {
  pending = Buffer.concat([pending, data]);
  while (pending.length >= 5 && pending.length >= 5 + pending.readUInt32BE(1)) {
    const end = 5 + pending.readUInt32BE(1);
    show(pending.subarray(5, end));
    pending = pending.subarray(end);
  }
});

const fail = (headers) => {
  if (headers["grpc-status"] && headers["grpc-status"] !== "0") {
    console.error(`status ${headers["grpc-status"]}: ${decodeURIComponent(headers["grpc-message"] ?? "")}`);
    process.exitCode = 1;
  }
};
call.on("response", fail); // a refusal comes with the headers
call.on("trailers", fail);
call.on("close", () => session.close());
for (const part of [session, call]) part.on("error", (error) => { console.error(error.message); process.exitCode = 1; });
