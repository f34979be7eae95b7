// What a subscriber sees: `node script.js GRAPHQL WS HANDS`. HANDS lets the script commit, revoke and stop.
import { createClient as wsClient } from 'graphql-ws';
import { createClient as sseClient } from 'graphql-sse';
import WebSocket from 'ws';

const [http, ws, hands] = process.argv.slice(2);
const hand = async (path) => {
  const response = await fetch(hands + path, { method: 'POST' });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
};
const QUERY = 'subscription($account: ID) { changes(accountId: $account) { sequence command } }';
const seen = {};

// A subscriber over WebSocket; `begun` when a ping after `subscribe` is answered.
function listen(token, query = QUERY, variables = {}) {
  const got = [], ends = {};
  let connected, ponged;
  const begun = new Promise((resolve) => { ponged = resolve; });
  const client = wsClient({
    url: ws,
    webSocketImpl: WebSocket,
    connectionParams: { Authorization: `Bearer ${token}` },
    retryAttempts: 0,
    on: {
      connected: (socket) => setTimeout(() => socket.send('{"type":"ping"}')),
      pong: (received) => { if (received) ponged(); },
      closed: (event) => { ends.code = event.code; ends.reason = event.reason; },
    },
  });
  const over = new Promise((resolve) => {
    ends.dispose = client.subscribe({ query, variables }, {
      next: (result) => got.push(result),
      error: (error) => resolve(Array.isArray(error) ? { errors: error } : { code: error.code ?? ends.code, reason: error.reason }),
      complete: () => resolve('complete'),
    });
  });
  return { got, begun, over, dispose: () => ends.dispose() };
}

// The same by server-sent events; begun when the head of the answer is there.
function listenInEvents() {
  const got = [];
  const client = sseClient({ url: http, headers: { authorization: 'Bearer full' }, retryAttempts: 0 });
  let connected;
  const begun = new Promise((resolve) => { connected = resolve; });
  const over = new Promise((resolve) => client.subscribe({ query: QUERY }, {
    next: (result) => got.push(result),
    error: (error) => resolve(String(error)),
    complete: () => resolve(got.at(-1)?.errors?.[0].extensions.code),
  }, { connected }));
  return { got, begun, over };
}

const sequences = (got) => got.map((result) => Number(result.data.changes.sequence));
const until = async (condition, bound = 20000) => {
  for (const end = Date.now() + bound; !condition();) {
    if (Date.now() > end) throw new Error(`not within the bound: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};

// A socket without a library: sends, and gives what comes until it is closed.
async function talk(messages, { protocol = 'graphql-transport-ws', headers = {}, then } = {}) {
  const socket = new WebSocket(ws, protocol, { headers });
  const got = [];
  let index = 0;
  const closed = new Promise((resolve) => {
    socket.on('close', (code, reason) => resolve({ code, reason: String(reason) }));
    socket.on('unexpected-response', (_, response) => resolve({ status: response.statusCode }));
    socket.on('error', () => {});
  });
  socket.on('message', async (data) => {
    const message = JSON.parse(data);
    got.push(message);
    if (message.type === 'pong' && then) await then(socket);
  });
  socket.on('open', () => messages.forEach((message) => socket.send(JSON.stringify(message))));
  return { ...(await closed), got };
}
const init = { type: 'connection_init', payload: { token: 'full' } };
const subscribe = (id = '1', query = QUERY) => ({ type: 'subscribe', id, payload: { query } });
const close = (socket) => socket.close(1000);

// Only what is committed after the begin, in order, of one's own subtree.
await hand('/commit/owner/1');
const mine = listen('full'), theirs = listen('foreign'), narrow = listen('full', QUERY, { account: process.argv[5] });
const inEvents = listenInEvents();
const events = inEvents.got;
await Promise.all([mine.begun, theirs.begun, narrow.begun, inEvents.begun]);
await hand('/commit/owner/2');
await hand('/commit/foreign/1');
await hand('/commit/owner/1');
await until(() => mine.got.length === 3 && theirs.got.length === 1 && events.length === 3);
await hand('/commit/below/1');
await until(() => mine.got.length === 4 && narrow.got.length === 1 && events.length === 4);
seen.mine = sequences(mine.got);
seen.theirs = sequences(theirs.got);
seen.narrow = sequences(narrow.got);
seen.events = sequences(events);
seen.command = mine.got[0].data.changes.command;
theirs.dispose();
narrow.dispose();
seen.disposed = [await theirs.over, await narrow.over];

// What is refused, and how.
seen.denied = (await listen('none').over).errors[0].extensions.code;
seen.unknownField = (await listen('full', 'subscription { nothing }').over).errors[0].extensions.code;
seen.twoFields = (await listen('full', 'subscription { changes { id } b: changes { id } }').over).errors[0].extensions.code;
seen.query = (await listen('full', '{ viewer { name } }').over).errors[0].message;
seen.codes = {
  noToken: (await talk([{ type: 'connection_init' }])).code,
  badToken: (await talk([{ type: 'connection_init', payload: { Authorization: 'Bearer unknown' } }])).code,
  badHeader: (await talk([], { headers: { authorization: 'Bearer unknown' } })).status,
  header: (await talk([{ type: 'connection_init' }, { type: 'ping' }],
    { headers: { authorization: 'Bearer full' }, then: close })).code,
  tooEarly: (await talk([subscribe()])).code,
  nonsense: (await talk([{ type: 'nonsense' }])).code,
  twice: (await talk([init, init])).code,
  sameId: (await talk([init, subscribe(), subscribe()])).code,
  protocol: (await talk([], { protocol: [] })).code,
};
const many = [...Array(17)].map((_, n) => subscribe(String(n)));
seen.tooMany = (await talk([init, ...many, { type: 'ping' }], { then: close })).got.filter((m) => m.type === 'error').map((m) => m.id);
const again = [init, subscribe(), { type: 'complete', id: '1' }, subscribe(), { type: 'ping' }];
seen.idAgain = (await talk(again, { then: close })).code;

// Who takes nothing holds up nobody else, not even for the ten seconds after which it is ended.
const wide = `subscription { changes { ${[...Array(29)].map((_, n) => `a${n}: hash`).join(' ')} } }`;
const deaf = talk([init, ...[...Array(16)].map((_, n) => subscribe(String(n), wide)), { type: 'ping' }], {
  then: async (socket) => {
    socket._socket.pause();
    for (let round = 0; round < 50; round += 1) {
      const told = mine.got.length;
      await hand('/commit/owner/8');
      await until(() => mine.got.length === told + 8, 6000);
    }
    socket.terminate();
  },
});
seen.deaf = (await deaf).code;

// Who does not keep up is ended, and told why.
seen.slow = await talk([init, subscribe(), { type: 'ping' }], {
  then: async (socket) => {
    socket._socket.pause();
    await hand('/commit/owner/20000');
    socket._socket.resume();
  },
});
seen.slow = [seen.slow.code, (await mine.over).code, await inEvents.over];

// The end of the token ends what listens under it, before anything more is told.
const last = listen('full'), lastInEvents = listenInEvents();
await Promise.all([last.begun, lastInEvents.begun]);
await hand('/revoke');
await hand('/commit/owner/1');
seen.revoked = { ...(await last.over), told: last.got.length };
seen.revokedInEvents = [await lastInEvents.over, lastInEvents.got.length];

// The stop of the server too.
await hand('/restore');
const open = listen('full');
await open.begun;
await hand('/stop');
seen.stopped = (await open.over).code;
console.log(JSON.stringify(seen));
process.exit(0);
