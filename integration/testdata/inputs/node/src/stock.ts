import _ from 'lodash';

export interface Item {
  name: string;
  shelf: string;
  count: number;
}

export function perShelf(items: Item[]): Record<string, number> {
  return _.mapValues(_.groupBy(items, 'shelf'), (list) => _.sumBy(list, 'count'));
}
