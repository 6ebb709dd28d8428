//! An in-process proxy-wasm host, ABI 0.2.1: the module runs as it is, with real header maps, properties, metrics and
//! logs, and every call is counted.
//!
//! ```no_run
//! use testkit::wasm_host::{Module, Request, Vm};
//!
//! let module = Module::load(testkit::artifacts::module()).unwrap();
//! let mut vm = Vm::new(&module, &[]);
//! assert!(vm.start(br#"{"defaults": {"timeout": "15s"}}"#).unwrap());
//! let outcome = vm.request(Request::default().header(":path", "/")).unwrap();
//! println!("{:?}", outcome.headers);
//! ```

mod calls;
mod count;
mod wasi;

use std::collections::BTreeMap;
use std::path::Path;

use wasmi::{Engine, ExternType, Linker, Memory, Store, TypedFunc, Val};

use crate::HeaderLines;

/// Enough for any request; a module that needs more is looping.
const FUEL: u64 = 2_000_000_000;

/// A compiled module.
pub struct Module {
    engine: Engine,
    module: wasmi::Module,
}

impl Module {
    /// Compiles a module and checks that Envoy would take it.
    ///
    /// # Errors
    /// What Envoy would refuse: bad bytes, a missing ABI version, imports that it doesn't have.
    pub fn load(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::from_bytes(&bytes)
    }

    /// As [`Module::load`], from bytes or WAT text.
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut config = wasmi::Config::default();
        config.consume_fuel(true);
        let engine = Engine::new(&config);
        let module = wasmi::Module::new(&engine, bytes).map_err(|error| error.to_string())?;
        let module = Self { engine, module };
        for (space, name) in module.imports() {
            if !matches!(space.as_str(), "env" | "wasi_snapshot_preview1") {
                return Err(format!("imports {space}.{name}, which Envoy doesn't have"));
            }
        }
        if !module
            .exports()
            .iter()
            .any(|name| name == "proxy_abi_version_0_2_1")
        {
            return Err("doesn't export proxy_abi_version_0_2_1".to_owned());
        }
        Ok(module)
    }

    /// As [`Module::load`], with [`Outcome::instructions`] counted. It runs at a third of the speed.
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn load_counting(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::from_bytes(&count::instrumented(&bytes)?)
    }

    /// As [`Module::load_counting`], for [`Vm::instructions_by_function`].
    ///
    /// # Errors
    /// As [`Module::load`].
    pub fn load_profiling(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::from_bytes(&count::instrumented_by_function(&bytes)?)
    }

    /// What the module exports.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        self.module
            .exports()
            .map(|export| export.name().to_owned())
            .collect()
    }

    /// What the module imports: module and name.
    #[must_use]
    pub fn imports(&self) -> Vec<(String, String)> {
        self.module
            .imports()
            .map(|import| (import.module().to_owned(), import.name().to_owned()))
            .collect()
    }
}

/// What the module's calls act on.
#[derive(Default)]
pub(crate) struct Host {
    memory: Option<Memory>,
    allocate: Option<TypedFunc<i32, i32>>,
    environment: Vec<(String, String)>,
    configuration: Vec<u8>,
    headers: HeaderLines,
    properties: BTreeMap<String, Vec<u8>>,
    filter_state: BTreeMap<String, String>,
    metrics: Vec<(String, i64)>,
    logs: Vec<(u32, String)>,
    log_level: u32,
    tick_period: Option<u32>,
    local_response: Option<LocalResponse>,
    calls: Vec<&'static str>,
    entries: Vec<&'static str>,
    faults: BTreeMap<&'static str, Fault>,
    route_cache_cleared: u32,
    /// While the module initializes, Envoy traps it for any call but a few.
    initializing: bool,
}

/// What Envoy lets a module call while it initializes (proxy-wasm-cpp-host, `WasmBase::startVm`).
const WHILE_INITIALIZING: &[&str] = &[
    "proxy_log",
    "fd_write",
    "random_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
];

/// What a host call does instead of its work.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It answers this status.
    Status(u32),
    /// It answers `Ok` with these bytes, whatever was asked for.
    Bytes(Vec<u8>),
}

/// The root context's number.
const ROOT: i32 = 1;

/// One VM with one plugin in it, as an Envoy worker has.
pub struct Vm {
    store: Store<Host>,
    instance: wasmi::Instance,
    next_context: i32,
}

/// One request as the filter gets it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Header lines, pseudo-headers included.
    pub headers: HeaderLines,
    /// Attribute values by path, segments separated by NUL.
    pub properties: BTreeMap<String, Vec<u8>>,
}

impl Request {
    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Gives an attribute a value; `path` has dots between its segments.
    #[must_use]
    pub fn property(mut self, path: &str, value: impl AsRef<[u8]>) -> Self {
        self.properties
            .insert(path.replace('.', "\0"), value.as_ref().to_vec());
        self
    }
}

/// An answer that the filter gave itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status.
    pub status: u32,
    /// The details, for access logs.
    pub details: String,
    /// The body.
    pub body: String,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The header lines after the filter.
    pub headers: HeaderLines,
    /// Whether the filter lets the request go on.
    pub continued: bool,
    /// What the filter answered itself.
    pub local_response: Option<LocalResponse>,
    /// What the module put into the stream's filter state; Envoy prefixes the names with `wasm.`.
    pub filter_state: BTreeMap<String, String>,
    /// Host calls, in order.
    pub calls: Vec<&'static str>,
    /// Functions of the module that the host entered, in order, allocations included.
    pub entries: Vec<&'static str>,
    /// Executed instructions, where the module counts them; else 0.
    pub instructions: u64,
    /// How often a header mutation made Envoy forget the route.
    pub route_cache_cleared: u32,
}

impl Outcome {
    /// The values of a header, in order.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers
            .iter()
            .filter(|(line, _)| line == name.as_bytes())
            .map(|(_, value)| value.as_slice())
            .collect()
    }
}

/// The module trapped: every later request on that worker fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap(pub String);

impl std::fmt::Display for Trap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the module trapped: {}", self.0)
    }
}

impl Vm {
    /// Instantiates the module, with these environment variables.
    ///
    /// # Panics
    /// Where the module can't be instantiated at all.
    #[must_use]
    pub fn new(module: &Module, environment: &[(&str, &str)]) -> Self {
        let mut store = Store::new(
            &module.engine,
            Host {
                environment: environment
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                log_level: 2,
                ..Host::default()
            },
        );
        store.set_fuel(FUEL).expect("fuel is on");
        let mut linker: Linker<Host> = Linker::new(&module.engine);
        for import in module.module.imports() {
            let ExternType::Func(kind) = import.ty().clone() else {
                panic!("imports {}, which is not a function", import.name());
            };
            let name: &'static str = String::leak(import.name().to_owned());
            let wasi = import.module() == "wasi_snapshot_preview1";
            linker
                .func_new(
                    import.module(),
                    import.name(),
                    kind,
                    move |mut caller, parameters, results| {
                        if caller.data().initializing && !WHILE_INITIALIZING.contains(&name) {
                            return Err(wasmi::Error::new("restricted_callback"));
                        }
                        let answer = if wasi {
                            wasi::call(name, &mut caller, parameters)?
                        } else {
                            calls::call(name, &mut caller, parameters)?
                        };
                        if let Some(result) = results.first_mut() {
                            *result = Val::I32(answer.cast_signed());
                        }
                        Ok(())
                    },
                )
                .expect("imports have distinct names");
        }
        let instance = linker
            .instantiate_and_start(&mut store, &module.module)
            .expect("the module can be instantiated");
        let memory = instance
            .get_memory(&store, "memory")
            .expect("the module exports its memory");
        store.data_mut().memory = Some(memory);
        store.data_mut().allocate = instance
            .get_typed_func(&store, "proxy_on_memory_allocate")
            .or_else(|_| instance.get_typed_func(&store, "malloc"))
            .ok();
        let mut vm = Self {
            store,
            instance,
            next_context: ROOT + 1,
        };
        vm.store.data_mut().initializing = true;
        vm.enter("_initialize", &[])
            .expect("_initialize doesn't trap");
        vm.store.data_mut().initializing = false;
        vm
    }

    /// Creates the plugin and configures it. Answers whether it takes the configuration.
    ///
    /// # Errors
    /// A trap.
    pub fn start(&mut self, configuration: &[u8]) -> Result<bool, Trap> {
        self.enter("proxy_on_context_create", &[ROOT, 0])?;
        self.enter("proxy_on_vm_start", &[ROOT, 0])?;
        self.configure(configuration)
    }

    /// Configures the plugin, perhaps again.
    ///
    /// # Errors
    /// A trap.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<bool, Trap> {
        self.configure_plugin(ROOT, configuration)
    }

    fn configure_plugin(&mut self, plugin: i32, configuration: &[u8]) -> Result<bool, Trap> {
        self.store.data_mut().configuration = configuration.to_vec();
        let size = i32::try_from(configuration.len()).expect("configurations are small");
        Ok(self.enter("proxy_on_configure", &[plugin, size])? == Some(1))
    }

    /// Lets a timer tick pass. Answers the host calls that it took.
    ///
    /// # Errors
    /// A trap.
    pub fn tick(&mut self) -> Result<Vec<&'static str>, Trap> {
        self.refuel();
        self.store.data_mut().calls.clear();
        self.enter("proxy_on_tick", &[ROOT])?;
        Ok(std::mem::take(&mut self.store.data_mut().calls))
    }

    /// Ends the plugin, as when its configuration is replaced by another.
    ///
    /// # Errors
    /// A trap.
    pub fn end(&mut self) -> Result<(), Trap> {
        self.close_plugin(ROOT)
    }

    /// Ends that plugin.
    ///
    /// # Errors
    /// A trap.
    pub fn close_plugin(&mut self, plugin: i32) -> Result<(), Trap> {
        self.enter("proxy_on_done", &[plugin])?;
        self.enter("proxy_on_delete", &[plugin]).map(drop)
    }

    /// Opens the context of a new stream.
    ///
    /// # Errors
    /// A trap.
    pub fn open(&mut self) -> Result<i32, Trap> {
        self.open_under(ROOT)
    }

    /// Opens the context of a new stream of that plugin.
    ///
    /// # Errors
    /// A trap.
    pub fn open_under(&mut self, plugin: i32) -> Result<i32, Trap> {
        let context = self.next_context;
        self.next_context += 1;
        self.enter("proxy_on_context_create", &[context, plugin])?;
        Ok(context)
    }

    /// Adds a plugin to the VM and configures it: Envoy does so if two plugins have the same module and `vm_id`. Answers
    /// its number, and whether it takes the configuration.
    ///
    /// # Errors
    /// A trap.
    pub fn add_plugin(&mut self, configuration: &[u8]) -> Result<(i32, bool), Trap> {
        let plugin = self.open_under(0)?;
        self.enter("proxy_on_vm_start", &[plugin, 0])?;
        let accepted = self.configure_plugin(plugin, configuration)?;
        Ok((plugin, accepted))
    }

    /// Gives a stream its request headers.
    ///
    /// # Errors
    /// A trap.
    pub fn request_headers(&mut self, context: i32, request: Request) -> Result<Outcome, Trap> {
        let count = i32::try_from(request.headers.len()).expect("headers are few");
        let host = self.store.data_mut();
        host.headers = request.headers;
        host.properties = request.properties;
        host.filter_state.clear();
        host.local_response = None;
        host.route_cache_cleared = 0;
        host.calls.clear();
        host.entries.clear();
        let before = self.instructions();
        let action = self.enter("proxy_on_request_headers", &[context, count, 1])?;
        let instructions = self.instructions() - before;
        let host = self.store.data_mut();
        Ok(Outcome {
            headers: std::mem::take(&mut host.headers),
            continued: action == Some(0),
            local_response: host.local_response.take(),
            filter_state: std::mem::take(&mut host.filter_state),
            calls: std::mem::take(&mut host.calls),
            entries: std::mem::take(&mut host.entries),
            instructions,
            route_cache_cleared: host.route_cache_cleared,
        })
    }

    /// Ends a stream.
    ///
    /// # Errors
    /// A trap.
    pub fn close(&mut self, context: i32) -> Result<(), Trap> {
        self.enter("proxy_on_done", &[context])?;
        self.enter("proxy_on_log", &[context])?;
        self.enter("proxy_on_delete", &[context]).map(drop)
    }

    /// A whole stream: opened, given its request headers, answered, ended. Calls, entries and instructions are of all of it.
    ///
    /// # Errors
    /// A trap.
    pub fn request(&mut self, request: Request) -> Result<Outcome, Trap> {
        self.refuel();
        self.store.data_mut().calls.clear();
        self.store.data_mut().entries.clear();
        let before = self.instructions();
        let context = self.open()?;
        let opening = std::mem::take(&mut self.store.data_mut().entries);
        let mut outcome = self.request_headers(context, request)?;
        self.enter("proxy_on_response_headers", &[context, 1, 1])?;
        self.close(context)?;
        outcome.instructions = self.instructions() - before;
        let closing = std::mem::take(&mut self.store.data_mut().entries);
        outcome.entries = [opening, outcome.entries, closing].concat();
        outcome.calls.append(&mut self.store.data_mut().calls);
        Ok(outcome)
    }

    /// What the module logged since the last time: level (0 trace … 4 error) and text.
    pub fn take_logs(&mut self) -> Vec<(u32, String)> {
        std::mem::take(&mut self.store.data_mut().logs)
    }

    /// A metric's value, if it is defined.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<i64> {
        let metrics = &self.store.data().metrics;
        metrics
            .iter()
            .find(|(metric, _)| metric == name)
            .map(|(_, value)| *value)
    }

    /// Sets the level of the host's log: 0 trace … 4 error.
    pub fn set_log_level(&mut self, level: u32) {
        self.store.data_mut().log_level = level;
    }

    /// The period at which the module wants to be woken, in milliseconds.
    #[must_use]
    pub fn tick_period(&self) -> Option<u32> {
        self.store.data().tick_period
    }

    /// Makes a host call fail from now on; `None` mends it.
    pub fn fail(&mut self, call: &'static str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.store.data_mut().faults.insert(call, fault),
            None => self.store.data_mut().faults.remove(call),
        };
    }

    /// The size of the module's memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store))
    }

    /// The instructions executed since the VM was made, where the module counts them; else 0.
    #[must_use]
    pub fn instructions(&self) -> u64 {
        self.instance
            .get_global(&self.store, count::EXECUTED)
            .and_then(|counter| counter.get(&self.store).i64())
            .map_or(0, i64::cast_unsigned)
    }

    /// The instructions executed by each function since the VM was made, where the module counts them by function.
    #[must_use]
    pub fn instructions_by_function(&self) -> BTreeMap<String, u64> {
        let globals = self.instance.exports(&self.store).filter_map(|export| {
            let name = export.name().strip_prefix(count::BY_FUNCTION)?.to_owned();
            let count = export.into_global()?.get(&self.store).i64()?;
            Some((name, count.cast_unsigned()))
        });
        globals.collect()
    }

    fn refuel(&mut self) {
        self.store.set_fuel(FUEL).expect("fuel is on");
    }

    /// Enters a function of the module, as the host does: one that isn't exported is not called.
    fn enter(&mut self, name: &'static str, parameters: &[i32]) -> Result<Option<i32>, Trap> {
        let Some(function) = self.instance.get_func(&self.store, name) else {
            return Ok(None);
        };
        self.store.data_mut().entries.push(name);
        let parameters: Vec<Val> = parameters.iter().map(|value| Val::I32(*value)).collect();
        let count = function.ty(&self.store).results().len();
        let mut results = vec![Val::I32(0); count];
        function
            .call(&mut self.store, &parameters, &mut results)
            .map_err(|error| {
                let logs: Vec<String> = self
                    .store
                    .data()
                    .logs
                    .iter()
                    .rev()
                    .take(3)
                    .map(|(_, line)| line.clone())
                    .collect();
                Trap(format!("in {name}: {error}; last log lines: {logs:?}"))
            })?;
        Ok(results.first().and_then(Val::i32))
    }
}
