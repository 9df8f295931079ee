// A peer of the benchmarks: what one writes with ws on Node.js, a set of sockets for each room, and what one of them says
// sent to all. As the documentation of ws teaches it, heartbeat and all, and not tuned.
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';

const { values } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    origin: { type: 'string', default: 'https://chat.example.com' },
    'pong-wait': { type: 'string', default: '60' },
  },
});

const rooms = new Map();
const path = /^\/rooms\/[^/]+\/[^/]+$/;
const server = createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({
  server,
  maxPayload: 64 * 1024,
  verifyClient: ({ origin, req }) => origin === values.origin && path.test(req.url),
});

sockets.on('connection', (socket, request) => {
  let room = rooms.get(request.url);
  if (!room) rooms.set(request.url, (room = new Set()));
  room.add(socket);
  socket.isAlive = true;
  socket.on('pong', () => { socket.isAlive = true; });
  socket.on('error', () => {}); // 'close' follows
  socket.on('close', () => {
    room.delete(socket);
    if (room.size === 0) rooms.delete(request.url);
  });
  socket.on('message', (data, binary) => {
    for (const member of room) member.send(data, { binary });
  });
});

setInterval(() => {
  for (const socket of sockets.clients) {
    if (!socket.isAlive) {
      socket.terminate();
      continue;
    }
    socket.isAlive = false;
    socket.ping();
  }
}, Number(values['pong-wait']) * 900);

server.listen(Number(values.port), values.host, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});
