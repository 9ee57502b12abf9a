#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Records what `tendon doctor` reads of this machine in the form of the files beside this script, to standard output.
# Look through it before you share it: it names the machine's user groups.
set -uo pipefail
shopt -s nullglob
line() { printf '%s = %s\n' "$1" "$(tr '\0' ' ' < "$1" 2>/dev/null | sed 's/\\/\\\\/g; s/\t/\\t/g' | sed ':a;N;$!ba;s/\n/\\n/g')"; }
for file in /proc/device-tree/{model,compatible} /sys/class/dmi/id/product_name /etc/nv_tegra_release /proc/version \
  /proc/sys/kernel/{osrelease,sched_rt_runtime_us} /sys/kernel/realtime /proc/self/{limits,status} /etc/group \
  /proc/meminfo /proc/pressure/memory /sys/devices/system/cpu/{online,isolated,nohz_full} \
  /sys/devices/system/cpu/cpufreq/policy*/{scaling_governor,scaling_{cur,min,max}_freq,cpuinfo_max_freq} \
  /sys/devices/system/clocksource/clocksource0/current_clocksource /run/systemd/timesync/synchronized /run/{chrony,openntpd.pid} \
  /var/lib/nvpmodel/status /etc/nvpmodel.conf /sys/class/devfreq/*/{governor,{cur,min,max}_freq,available_frequencies,device/load} \
  /sys/devices/platform/gpu.0/load /sys/devices/platform/bus@0/17000000.gpu/load \
  /sys/class/thermal/thermal_zone*/{type,temp,trip_point_*_{type,temp}} /sys/class/thermal/cooling_device*/{type,cur_state} \
  /sys/class/hwmon/hwmon*/{name,in*_label,in*_input,curr*_input,oc*_event_cnt} \
  /sys/class/watchdog/watchdog*/{identity,timeout} {/etc,/run,/usr/local/lib,/usr/lib}/systemd/system.conf{,.d/*.conf} \
  {/etc,/run}/systemd/system.control/tendon*.service.d/*.conf \
  {/etc,/run,/usr/local/lib,/usr/lib}/systemd/system/tendon*.service{,.d/*.conf} /etc/ld.so.conf.d/* /sys/class/video4linux/video*/{name,index}; do
  [ -r "$file" ] && line "$file"
done
for node in /dev/nvmap /dev/host1x-fence /dev/nvhost-*-gpu /dev/nvhost-gpu /dev/nvgpu/*/* /dev/dri/* /dev/video* /dev/ttyUSB* /dev/ttyACM* /dev/gpiochip* /dev/tendon/*; do
  [ -d "$node" ] || [ ! -e "$node" ] || printf '%s %s =\n' "$node" "$(stat -Lc %a "$node")"
done
for folder in /usr/lib/{aarch64,x86_64}-linux-gnu{,/nvidia,/tegra} /usr/lib /usr/local/lib /usr/local/cuda*/{lib64,targets/aarch64-linux/lib}; do
  for library in "$folder"/lib{cuda,cudart,nvinfer}.so*; do printf '%s =\n' "$library"; done
done
