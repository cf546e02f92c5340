// Rows that nobody has stored: what a query answers where there is no database.

const rowOf = (id) => ({ id, title: `item ${id}`, done: 0 });

export const rowsOf = (statement, { id = 1 }) =>
  Array.from({ length: statement === 'range' ? 1000 : 1 }, (_, nth) => rowOf(id + nth));
