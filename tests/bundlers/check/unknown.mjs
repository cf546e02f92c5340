import { doctype, mutation } from 'tidelog';

const add = mutation({ id: 'number' }, 'insert into note (id) values (:id)');

export const notes = doctype({ name: 'notes', migrations: [], mutations: { add } });
