"""Auditing a data folder: measure every clip, find shared audio, and find labels that are probably wrong."""
