import express from 'express';
import { AddressInfo } from 'net';
import { get } from 'http';
import { perShelf } from './stock';

const app = express();
app.get('/', (_req, res) => {
  res.json(perShelf([
    { name: 'nut', shelf: 'a', count: 3 },
    { name: 'bolt', shelf: 'a', count: 4 },
    { name: 'key', shelf: 'b', count: 1 },
  ]));
});

// Serves one request, its own, and ends.
const server = app.listen(0, '127.0.0.1', () => {
  get({ host: '127.0.0.1', port: (server.address() as AddressInfo).port }, (res) => {
    res.setEncoding('utf8');
    res.on('data', (text) => console.log(`shelves ${text}`));
    res.on('end', () => server.close());
  });
});
