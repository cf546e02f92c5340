import { doctype } from 'tidelog';

document.title = 'Notes';

export const notes = doctype({ name: 'notes', migrations: [], mutations: {} });
