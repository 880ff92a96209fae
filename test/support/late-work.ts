// Set-up file of the project `core`: each test ends what its requests still do.
import { afterEach } from "vitest";
import { endLateWork } from "./app-requests.ts";

afterEach(endLateWork);
