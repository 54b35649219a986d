"""What is in a data folder, and what is wrong with it: `audit` measures, compares and doubts every clip."""
