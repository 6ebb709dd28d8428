use testkit::wasm_host::*;
use testkit::workloads;
fn main() {
    let m = Module::load_counting(std::path::Path::new(&std::env::args().nth(1).unwrap())).unwrap();
    for name in ["xfp only", "untrusted", "full job", "1 route"] {
        let w = workloads::named(name);
        let mut vm = Vm::new(&m, &[]);
        assert!(vm.start(w.config.to_string().as_bytes()).unwrap());
        for _ in 0..2 {
            vm.request(workloads::request(w.peer)).unwrap();
        }
        let total = vm.request(workloads::request(w.peer)).unwrap().instructions;
        let c = vm.open().unwrap();
        let o = vm.request_headers(c, workloads::request(w.peer)).unwrap();
        vm.close(c).unwrap();
        println!("{name}: total {total}, headers {}", o.instructions);
        let mut r = workloads::request(w.peer);
        r.headers.truncate(4);
        let c = vm.open().unwrap();
        let o = vm.request_headers(c, r).unwrap();
        vm.close(c).unwrap();
        println!("   4 headers {}", o.instructions);
    }
}
