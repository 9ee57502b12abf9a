use tendon::config::*; use tendon::runtime::{deployment::*, evaluation::*, lockstep::*};
#[global_allocator] static A: tendon::runtime::realtime::CountingAllocator = tendon::runtime::realtime::CountingAllocator;
fn main(){ let n: u32 = std::env::args().nth(1).unwrap().parse().unwrap();
 let c=Config::load(std::path::Path::new("deploy/bench/tendon.toml")).map_err(|p| p.iter().for_each(|p| eprintln!("{p}"))).unwrap();
 let d=Deployment::load(c).map_err(|p| p.iter().for_each(|p| eprintln!("{p}"))).unwrap();
 let mut l=Lockstep::new(d,0); let mut r=Report::default(); let t=std::time::Instant::now();
 for s in plan(n,7).iter().chain(&grounding_plan(n,7)) { let o=l.episode(s).unwrap(); if std::env::args().nth(2).is_some() {println!("{s:?} {o:?}");} r.add(s,&o); }
 r.take(&l.measures.figures()); r.limit_violations=l.limit_violations; r.commands_rejected=l.rejected; r.allocations_in_control_loop=l.allocations; r.governor_interventions=l.interventions; r.wall_s=t.elapsed().as_secs_f64();
 println!("{}", serde_json::to_string_pretty(&r).unwrap()); }
