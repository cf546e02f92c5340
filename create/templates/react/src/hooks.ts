import { createHooks } from 'tidelog/react';
import { todos } from './todos';

// In a module without components: one that exports both is not refreshed as it is edited.
export const { Provider, useLive, useMutate, useStatus } = createHooks(todos);
