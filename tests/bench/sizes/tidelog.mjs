// The least that an app imports.
import { doctype, mutation, open } from 'tidelog';

globalThis.app = { doctype, mutation, open };
