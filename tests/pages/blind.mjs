// A worker that cannot see the locks of others.

LockManager.prototype.query = async () => ({ held: [], pending: [] });
