// Loading the module, and the ways in which this process starts and ends.

// resolveModule finds the file of a name and, for package.property, the property.
function resolveModule(name) {
  const whole = tryResolve(name);
  if (whole) return [whole, null];
  const dot = name.lastIndexOf('.');
  const part = dot > 0 && tryResolve(name.slice(0, dot));
  if (part) return [part, name.slice(dot + 1)];
  throw new Error(`cannot find the module ${name}, as a package or as a path from ${cwd}`);
}

function tryResolve(name) {
  for (const candidate of [name, path.resolve(cwd, name)]) {
    try {
      return requireFrom.resolve(candidate);
    } catch (err) {
      if (err.code !== 'MODULE_NOT_FOUND' && err.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw err;
    }
  }
  return null;
}

async function importModule(file) {
  const space = await load(pathToFileURL(file).href);
  return space.default === undefined ? space : space.default;
}

function loadModule() {
  for (const [name, from] of Object.entries(options.require || {})) globalThis[name] = requireFrom(resolveModule(from)[0]);
  if (!options.module) return undefined;
  const [file, property] = resolveModule(options.module);
  const pick = (exported) => {
    if (property !== null) return exported[property];
    return exported && exported.__esModule && exported.default !== undefined ? exported.default : exported;
  };
  try {
    return pick(requireFrom(file));
  } catch (err) {
    if (err.code !== 'ERR_REQUIRE_ESM' && err.code !== 'ERR_REQUIRE_ASYNC_MODULE') throw err;
    return importModule(file).then(pick);
  }
}

function makeHost(exported) {
  const style = options.style || 'auto';
  if (style.startsWith('qoper8') || (style === 'auto' && registered.asked && typeof exported !== 'function')) return new QOper8(style);
  if (style === 'qworker') return new QWorker(exported);
  if (style === 'auto' && exported === undefined && options.script_dir) return new QWorker(exported);
  if (style === 'auto' && parameters(exported) > 1) return new QWorker(exported);
  return new Ewd(exported, style);
}

function loaded(exported) {
  host = makeHost(exported);
  start();
}

// start runs when the module is there and the start line has come, whichever is last.
function start() {
  if (!host || first === null || ready || (host.waits && host.waits())) return;
  try {
    host.start(first);
  } catch (err) {
    die(err);
  }
}

function markReady() {
  if (ready) return;
  ready = true;
  put('{"type":"ready"}');
  process.nextTick(pump);
}

// guarded runs a stop listener: one that fails keeps no other from running.
function guarded(listener) {
  try {
    return Promise.resolve(listener()).catch((err) => log('error', `a stop listener failed: ${stackOf(err)}`));
  } catch (err) {
    log('error', `a stop listener failed: ${stackOf(err)}`);
    return undefined;
  }
}

// leave ends the process when the module has nothing more to do, and GRACE after its stop listeners at the latest.
function leave(code, listeners) {
  if (leaving) return;
  leaving = true;
  process.exitCode = code;
  if (source) source.destroy();
  const all = listeners && host ? host.stop() : [];
  Promise.all(all).then(() => setTimeout(() => process.exit(code), GRACE).unref());
}

// die is for a module that cannot be loaded or started.
function die(err) {
  log('error', `the module could not be started: ${stackOf(err)}`);
  console.error(stackOf(err));
  process.exit(1);
}

// uncaught is for what nobody could catch: the item in hand fails, and the process ends.
function uncaught(err, origin) {
  console.error(`uncaught (${origin}): ${stackOf(err)}`);
  log('error', `uncaught (${origin}), this process ends: ${stackOf(err)}`);
  try {
    if (host) host.dying();
  } catch (again) {
    log('error', `a listener of unexpectedError failed: ${stackOf(again)}`);
  }
  if (current) current.fail(err);
  process.exit(1);
}

function atExit(code) {
  if (!current) return;
  if (!leaving) put(current.failure(new Error(`the process ended with code ${code} before the item was answered`), true));
  current.unlock();
}

// freeStdio moves the lines away from descriptors 0 and 1, so that what a module or its children print cannot get
// between them: where the system lets it, the descriptors themselves, else only process.stdout.
function freeStdio() {
  if (input !== 0 && output !== 1) return;
  try {
    const [to, from] = [fs.openSync('/proc/self/fd/1', fs.constants.O_WRONLY), fs.openSync('/proc/self/fd/0', 'r')];
    fs.closeSync(0);
    fs.openSync('/dev/null', 'r');
    fs.closeSync(1);
    openErrors();
    [input, output] = [from, to];
  } catch (err) {
    Object.defineProperty(process, 'stdout', { configurable: true, enumerable: true, get: () => process.stderr });
  }
}

function openErrors() {
  try {
    fs.openSync('/proc/self/fd/2', fs.constants.O_WRONLY | fs.constants.O_APPEND);
  } catch (err) {
    fs.openSync('/dev/null', 'w');
  }
}

// hideTraces makes the process look as if the module had been started from a file: node -e leaves globals behind.
function hideTraces() {
  delete process.env.STINT_NODE_HOST;
  delete process.env.STINT_NODE_OPTIONS;
  process.execArgv.splice(0, process.execArgv.length, ...(options.node_args || []));
  for (const name of ['require', 'module', 'exports', '__filename', '__dirname']) delete globalThis[name];
  for (const name of Module.builtinModules) {
    const made = Object.getOwnPropertyDescriptor(globalThis, name);
    if (made && made.set && !made.enumerable && name !== 'process' && name !== 'console') delete globalThis[name];
  }
}

function stubQOper8() {
  const original = Module._load;
  Module._load = function (request, ...args) {
    if (request !== 'qoper8') return original.call(this, request, ...args);
    registered.asked = true;
    return qoper8;
  };
}

function ended() {
  stopped = true;
  pump();
}

function openInput() {
  const buffer = Buffer.allocUnsafe(65536);
  const onread = {
    buffer,
    callback(size, data) {
      feed(data.subarray(0, size));
      return true;
    },
  };
  source = new net.Socket({ fd: input, readable: true, writable: false, onread });
  source.on('end', ended);
  source.on('error', ended);
  source.resume();
}

function main() {
  freeStdio();
  hideTraces();
  stubQOper8();
  process.on('uncaughtException', uncaught);
  process.on('exit', atExit);
  process.on('SIGINT', () => {}); // of a terminal: the pool says when to stop
  process.on('SIGTERM', () => leave(143, true));
  try {
    const exported = loadModule();
    if (exported && typeof exported.then === 'function') exported.then(loaded).catch(die);
    else loaded(exported);
  } catch (err) {
    die(err);
  }
  openInput();
}

process.nextTick(main); // when node -e has put back the globals that it covers while its text runs
