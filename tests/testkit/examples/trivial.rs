use wasmi::*;
fn main() {
    let mut c = Config::default();
    c.consume_fuel(true);
    let e = Engine::new(&c);
    let m=Module::new(&e, r#"(module (func (export "a")) (func (export "b") (local i64 i64) (local.set 0 (i64.const 3)) (local.set 0 (i64.add (local.get 0)(i64.const 1)))) (func (export "c") (result i32) (i32.add (i32.const 1)(i32.const 2))))"#).unwrap();
    let mut s = Store::new(&e, ());
    s.set_fuel(1000000).unwrap();
    let i = Linker::new(&e).instantiate_and_start(&mut s, &m).unwrap();
    for n in ["a", "b", "c", "a"] {
        let b = s.get_fuel().unwrap();
        let f = i.get_func(&s, n).unwrap();
        let k = f.ty(&s).results().len();
        let mut r = vec![Val::I32(0); k];
        f.call(&mut s, &[], &mut r).unwrap();
        println!("{n} {}", b - s.get_fuel().unwrap());
    }
}
