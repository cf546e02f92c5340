import { doctype, open } from 'tidelog';

export const notes = doctype({ name: 'notes', migrations: [], mutations: {} });

export const db = open(notes, { document: 'notes' });

setInterval(() => {}, 1_000);
