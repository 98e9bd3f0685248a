//! For a newcomer: one command that shows real pods in real containers, each on its own cell, and leaves nothing behind.

mod acts;
mod cells;
mod progress;

use std::time::Instant;

use anyhow::{Context, Result};

pub(crate) use self::cells::mark;
use crate::dev::Dev;
use crate::{build, interrupt, paths, setup, ui};

/// The manifests, in the order they are applied. Each holds what its pod needs.
const MANIFESTS: [&str; 4] = ["batch.yaml", "web.yaml", "config.yaml", "too-big.yaml"];

/// Sets up, builds, and plays. Fails when anything did not hold.
pub(crate) fn run() -> Result<()> {
    let begin = Instant::now();
    ui::section("Setting up");
    let machine = setup::machine()?;
    ui::ok(&format!(
        "containerd, runc, CNI plugins, kubectl and an image: {}",
        setup::image::NAME
    ));
    ui::section("Building (release, only the local cloud)");
    let programs = build::release()?;
    ui::ok(&format!("kip and its agent ({})", ui::duration(begin.elapsed())));

    let folder = tempfile::Builder::new()
        .prefix("kip-demo-")
        .tempdir()
        .context("cannot make a folder")?;
    let play_begin = Instant::now();
    let mut dev = Dev::start(&machine, &programs, folder.path())?;
    let outcome = play(&mut dev);
    // The dev is cleared whatever happened on it.
    interrupt::clear();
    let cleared = clear(dev);
    outcome?;
    cleared?;
    ui::section("Done");
    ui::ok(&format!(
        "everything held; the pods took {} of {}",
        ui::duration(play_begin.elapsed()),
        ui::duration(begin.elapsed())
    ));
    Ok(())
}

fn play(dev: &mut Dev) -> Result<()> {
    ui::section("Applying the manifests in examples/");
    let mut pods = Vec::new();
    for manifest in MANIFESTS {
        let path = paths::workspace().join("examples").join(manifest);
        pods.push(progress::apply(dev, &path)?);
    }
    let [batch, web, config, too_big] = <[String; 4]>::try_from(pods)
        .ok()
        .context("four manifests, four pods")?;
    ui::section("What happens");
    progress::follow(
        dev,
        &[
            (&batch, "Succeeded"),
            (&web, "Running"),
            (&config, "Succeeded"),
            (&too_big, "Pending"),
        ],
    )?;

    acts::batch(dev, &batch)?;
    acts::web(dev, &web)?;
    acts::config(dev, &config)?;
    acts::too_big(dev, &too_big)?;
    acts::delete(dev, &[&batch, &web, &config, &too_big])?;
    // A cell's record is complete once it ends: it is not written again for each stage of a running pod.
    ui::section("What each pod got, and how long each stage took");
    cells::table(dev, &[&batch, &web, &config, &too_big])?;
    Ok(())
}

fn clear(dev: Dev) -> Result<()> {
    ui::section("Nothing is left");
    let cloud = dev.cloud()?;
    dev.end()?;
    ui::ok("kip dev ended with 0 on Ctrl-C");
    cloud.prove_none_left()?;
    ui::ok("no cell, network namespace, link, firewall table, container, mount, control group or process");
    Ok(())
}
