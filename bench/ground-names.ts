// Names that the program of a benchmark and its Worker share.

/** The one member of each tenant. */
export const MEMBER_ID = "bench-member";
