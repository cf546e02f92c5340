import { createHooks } from 'tidelog/vue';
import { todos } from './todos';

export const { Provider, useLive, useMutate, useStatus } = createHooks(todos);
