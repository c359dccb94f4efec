# Copyright (c) 2026 the webfarm.iis authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed, as ratios: every figure is measured in the same run as its reference, the median counts.

python -m bench [NAME...] [--smoke] [--table]; ./run bench sets up what it needs.
"""
