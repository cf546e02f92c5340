'use client';

import { useEffect } from 'react';
import { start } from '../../app/app.mjs';

export default function Page() {
  useEffect(() => {
    start();
  }, []);
  return <p>Notes</p>;
}
