const { perShelf } = require('../build/stock');

test('sums what lies on a shelf', () => {
  const got = perShelf([{ name: 'nut', shelf: 'a', count: 3 }, { name: 'bolt', shelf: 'a', count: 4 }]);
  expect(got).toEqual({ a: 7 });
});
