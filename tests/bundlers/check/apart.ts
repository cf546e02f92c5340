import { doctype } from 'tidelog';
import { migrations } from './migrations';

export const notes = doctype({ name: 'notes', migrations, mutations: {} });
