export const migrations = ['create table note (id text primary key) strict'];
