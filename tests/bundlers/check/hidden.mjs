import { doctype } from 'tidelog';

const notes = doctype({ name: 'notes', migrations: [], mutations: {} });

export const { name } = notes;
