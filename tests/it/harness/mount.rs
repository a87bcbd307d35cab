//! File systems of their own, which root may mount.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount that ends with the test.
#[derive(Debug)]
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// An empty file system of this size, such as `2m`.
    pub(crate) fn small(folder: &Path, size: &str) -> Self {
        Self::on(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder)
    }

    /// The same folder, that nobody can write to any more.
    pub(crate) fn read_only(folder: &Path) -> Self {
        let text = folder.to_str().unwrap();
        let mount = Self::on(&["--bind", text], folder);
        run(&["-o", "remount,ro,bind", text]);
        mount
    }

    /// The same files on another file system, to which no link of a file leads.
    pub(crate) fn elsewhere(folder: &Path) -> Self {
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let contents: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        let mount = Self::small(folder, "8m");
        files.iter().zip(contents).for_each(|(file, bytes)| std::fs::write(file, bytes).unwrap());
        mount
    }

    fn on(words: &[&str], folder: &Path) -> Self {
        run(&[words, &[folder.to_str().unwrap()]].concat());
        Self(folder.to_owned())
    }
}

fn run(words: &[&str]) {
    let mount = Command::new("mount").args(words).output().unwrap();
    assert!(mount.status.success(), "mount (as root): {}", String::from_utf8_lossy(&mount.stderr));
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _gone_with_the_machine = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
