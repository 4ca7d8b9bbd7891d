// Lock files: one process at a time handles the items that name the same file.

function makeLock(file) {
  if (createLock(file)) return;
  refuseHeld(file);
  const guard = `${file}.break`; // who takes over holds it, so that nobody deletes the lock of another who has
  if (!createLock(guard)) {
    if (!abandoned(guard)) throw new Error(`${file}: cannot break lock, another process is breaking it`);
    fs.unlinkSync(guard);
    throw new Error(`${file}: cannot break lock, an abandoned ${guard} was in the way and is removed`);
  }
  try {
    refuseHeld(file);
    fs.rmSync(file, { force: true });
    if (!createLock(file)) throw new Error(`${file}: cannot break lock, another process was first`);
  } finally {
    removeLock(guard);
  }
}

function createLock(file) {
  try {
    fs.writeFileSync(file, String(process.pid), { flag: 'wx', mode: 0o600 });
    return true;
  } catch (err) {
    if (err.code === 'EEXIST') return false;
    throw err;
  }
}

// refuseHeld throws when a living process has the lock. Our own id in a file that we do not hold is that of a dead
// process which had the same.
function refuseHeld(file) {
  const pid = holder(file);
  if (pid === 0 && !abandoned(file)) throw new Error(`${file}: cannot break lock, its holder is not written yet`);
  if (pid > 0 && pid !== process.pid && alive(pid)) throw new Error(`${file}: cannot break lock, process ${pid} exists`);
}

// holder is the process id in a lock file, 0 when there is none, -1 without the file.
function holder(file) {
  try {
    return parseInt(fs.readFileSync(file, 'utf8'), 10) || 0;
  } catch (err) {
    if (err.code === 'ENOENT') return -1;
    throw err;
  }
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (err) {
    return err.code === 'EPERM';
  }
}

function abandoned(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  return stat !== undefined && Date.now() - stat.mtimeMs > LOCK_AGE;
}

function removeLock(file) {
  try {
    fs.unlinkSync(file);
  } catch (err) {
    log('warn', `the lock file ${file} could not be removed: ${textOf(err)}`);
  }
}
