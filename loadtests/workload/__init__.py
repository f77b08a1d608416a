"""What is requested, and when: payloads, model mixes, schedules, recorded traces."""
